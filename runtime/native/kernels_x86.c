/* kernels_x86.c - the loops over weights with 128-bit and with 256-bit vectors. */
#include "kernels.h"
#include "simd.h"

#if defined(BSX_X86)
#include <immintrin.h>
#include <string.h>

#include "bsx.h"

#define SSE4 __attribute__((target("sse4.1")))
#define AVX2 __attribute__((target("avx2,f16c")))

static __m128i load(const void *p) { return _mm_loadu_si128((const __m128i *)p); }

/* Stores around the cache need aligned addresses. */
static bool aligned(const void *p, size_t to) { return (uintptr_t)p % to == 0; }

/* How many weights are written one by one before out is aligned; all of them if it never is. */
static size_t before_aligned(const uint8_t *out, size_t count, unsigned item_bytes, size_t to) {
    const size_t bytes = (to - (uintptr_t)out % to) % to;
    if (bytes % item_bytes || bytes / item_bytes > count) return count;
    return bytes / item_bytes;
}

/* ---- 128 bits ---- */

/* The levels of 8 weights: packed ones where the bits are 1. */
SSE4 static __m128i expand_8_levels(unsigned bits, const int8_t *packed) {
    const __m128i places = _mm_loadl_epi64((const __m128i *)bsx_expand_8[bits]);
    return _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)packed), places);
}

SSE4 static void expand_levels_128(int8_t *out, const uint8_t *bitmap, size_t bytes, const int8_t *packed) {
    for (size_t i = 0; i < bytes; i++) {
        const unsigned bits = bitmap[i];
        _mm_storel_epi64((__m128i *)(out + 8 * i), expand_8_levels(bits, packed));
        packed += bsx_ones[bits];
    }
}

SSE4 static void expand_symbols_128(uint16_t *out, const uint8_t *bitmap, size_t bytes, const uint16_t *packed) {
    for (size_t i = 0; i < bytes; i++) {
        const unsigned bits = bitmap[i];
        _mm_storeu_si128((__m128i *)(out + 8 * i), _mm_shuffle_epi8(load(packed), load(bsx_expand_16[bits])));
        packed += bsx_ones[bits];
    }
}

SSE4 static __m128 product_128(__m128i bytes, __m128 step) {
    return _mm_mul_ps(_mm_cvtepi32_ps(_mm_cvtepi8_epi32(bytes)), step);
}

/* float32 to bfloat16, nearest, ties to even; the values are no NaN. */
SSE4 static __m128i bfloat16_128(__m128 value) {
    const __m128i bits = _mm_castps_si128(value);
    const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
    return _mm_srli_epi32(_mm_add_epi32(_mm_add_epi32(bits, odd), _mm_set1_epi32(0x7FFF)), 16);
}

/* Convert 16 levels into `vectors` vectors of 128 bits. */
SSE4 static inline void convert_16_levels(__m128i *v, __m128i levels, int type, __m128 step) {
    const __m128i high = _mm_srli_si128(levels, 8);
    if (type == BSX_INT16) {
        v[0] = _mm_cvtepi8_epi16(levels);
        v[1] = _mm_cvtepi8_epi16(high);
    } else if (type == BSX_INT32) {
        v[0] = _mm_cvtepi8_epi32(levels);
        v[1] = _mm_cvtepi8_epi32(_mm_srli_si128(levels, 4));
        v[2] = _mm_cvtepi8_epi32(high);
        v[3] = _mm_cvtepi8_epi32(_mm_srli_si128(high, 4));
    } else {
        const __m128 a = product_128(levels, step), b = product_128(_mm_srli_si128(levels, 4), step);
        const __m128 c = product_128(high, step), d = product_128(_mm_srli_si128(high, 4), step);
        if (type == BSX_FLOAT32) {
            v[0] = _mm_castps_si128(a);
            v[1] = _mm_castps_si128(b);
            v[2] = _mm_castps_si128(c);
            v[3] = _mm_castps_si128(d);
        } else {
            v[0] = _mm_packus_epi32(bfloat16_128(a), bfloat16_128(b));
            v[1] = _mm_packus_epi32(bfloat16_128(c), bfloat16_128(d));
        }
    }
}

__attribute__((always_inline)) SSE4 static inline void convert_type_128(uint8_t *out, const int8_t *levels,
                                                                         size_t groups, const int type, float step,
                                                                         const bool around) {
    const unsigned vectors = type == BSX_INT16 || type == BSX_BFLOAT16 ? 2 : 4;
    const __m128 steps = _mm_set1_ps(step);
    for (size_t i = 0; i < groups; i++) {
        __m128i v[4];
        convert_16_levels(v, load(levels + 16 * i), type, steps);
        for (unsigned j = 0; j < vectors; j++) {
            __m128i *to = (__m128i *)(void *)out + i * vectors + j;
            if (around) _mm_stream_si128(to, v[j]);
            else _mm_storeu_si128(to, v[j]);
        }
    }
    if (around) _mm_sfence();
}

SSE4 static void convert_128(uint8_t *out, const int8_t *levels, size_t count, const bsx_conversion *c) {
    const bool around = c->around && aligned(out, 16);
    const size_t groups = count / 16;
    size_t done = 16 * groups;
    if (c->type == BSX_FLOAT32 && around) convert_type_128(out, levels, groups, BSX_FLOAT32, c->step, true);
    else if (c->type == BSX_FLOAT32) convert_type_128(out, levels, groups, BSX_FLOAT32, c->step, false);
    else if (c->type == BSX_BFLOAT16) convert_type_128(out, levels, groups, BSX_BFLOAT16, c->step, false);
    else if (c->type == BSX_INT16) convert_type_128(out, levels, groups, BSX_INT16, c->step, false);
    else if (c->type == BSX_INT32) convert_type_128(out, levels, groups, BSX_INT32, c->step, false);
    else done = 0;
    bsx_convert_portable(out + done * c->item_bytes, levels + done, count - done, c);
}

SSE4 static void expand_float32_128(uint8_t *out, const uint8_t *bitmap, size_t bytes, const int8_t *packed,
                                    const bsx_conversion *c) {
    const __m128 steps = _mm_set1_ps(c->step);
    const bool around = c->around && aligned(out, 16);
    float *to = (float *)(void *)out;
    for (size_t i = 0; i < bytes; i++, to += 8) {
        const unsigned bits = bitmap[i];
        const __m128i levels = expand_8_levels(bits, packed);
        const __m128 low = product_128(levels, steps), high = product_128(_mm_srli_si128(levels, 4), steps);
        if (around) {
            _mm_stream_ps(to, low);
            _mm_stream_ps(to + 4, high);
        } else {
            _mm_storeu_ps(to, low);
            _mm_storeu_ps(to + 4, high);
        }
        packed += bsx_ones[bits];
    }
    if (around) _mm_sfence();
}

SSE4 static void copy_around_128(uint8_t *out, const uint8_t *from, size_t bytes) {
    const size_t head = before_aligned(out, bytes, 1, 16);
    memcpy(out, from, head);
    size_t i = head;
    for (; i + 16 <= bytes; i += 16) _mm_stream_si128((__m128i *)(void *)(out + i), load(from + i));
    memcpy(out + i, from + i, bytes - i);
    _mm_sfence();
}

const bsx_kernels bsx_sse4 = {"sse4.1",           false,          convert_128, expand_levels_128, expand_float32_128,
                              expand_symbols_128, copy_around_128};

/* ---- 256 bits ---- */

AVX2 static __m256 product_256(__m128i bytes, __m256 step) {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), step);
}

AVX2 static void convert_float32_256(float *out, const int8_t *levels, size_t groups, float step, bool around) {
    const __m256 steps = _mm256_set1_ps(step);
    for (size_t i = 0; i < groups; i++) {
        for (unsigned j = 0; j < 4; j++, levels += 8, out += 8) {
            const __m256 value = product_256(_mm_loadl_epi64((const __m128i *)levels), steps);
            if (around) _mm256_stream_ps(out, value);
            else _mm256_storeu_ps(out, value);
        }
    }
    if (around) _mm_sfence();
}

AVX2 static void convert_float16_256(uint16_t *out, const int8_t *levels, size_t groups, float step) {
    const __m256 steps = _mm256_set1_ps(step);
    for (size_t i = 0; i < 4 * groups; i++) {
        const __m256 value = product_256(_mm_loadl_epi64((const __m128i *)(levels + 8 * i)), steps);
        _mm_storeu_si128((__m128i *)(out + 8 * i), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
    }
}

AVX2 static void convert_256(uint8_t *out, const int8_t *levels, size_t count, const bsx_conversion *c) {
    const size_t groups = count / 32, done = 32 * groups;
    void *to = out;
    if (c->type == BSX_FLOAT32) {
        convert_float32_256(to, levels, groups, c->step, c->around && aligned(out, 32));
    } else if (c->type == BSX_FLOAT16) {
        convert_float16_256(to, levels, groups, c->step);
    } else {
        convert_128(out, levels, count, c);
        return;
    }
    bsx_convert_portable(out + done * c->item_bytes, levels + done, count - done, c);
}

AVX2 static void expand_float32_256(uint8_t *out, const uint8_t *bitmap, size_t bytes, const int8_t *packed,
                                    const bsx_conversion *c) {
    const __m256 steps = _mm256_set1_ps(c->step);
    const bool around = c->around && aligned(out, 32);
    float *to = (float *)(void *)out;
    for (size_t i = 0; i < bytes; i++) {
        const unsigned bits = bitmap[i];
        const __m256 value = product_256(expand_8_levels(bits, packed), steps);
        if (around) _mm256_stream_ps(to + 8 * i, value);
        else _mm256_storeu_ps(to + 8 * i, value);
        packed += bsx_ones[bits];
    }
    if (around) _mm_sfence();
}

const bsx_kernels bsx_avx2 = {"avx2",             true,           convert_256, expand_levels_128, expand_float32_256,
                              expand_symbols_128, copy_around_128};

/* Wider vectors serve products alone: panels_x86.c. */
const bsx_kernels bsx_avx512 = {"avx512",           true,           convert_256, expand_levels_128, expand_float32_256,
                                expand_symbols_128, copy_around_128};
#endif
