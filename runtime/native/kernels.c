/* kernels.c - the loops over weights for every processor, their tables, and which kinds there are. */
#include "kernels.h"

#include <string.h>

#include "bsx.h"
#include "simd.h"

#if defined(BSX_X86)
#include <cpuid.h>
#endif

/* ---- tables: a row for each byte n ---- */

#define BIT(n, i) ((n) >> (i)&1)
#define BELOW_2(n) (BIT(n, 0) + BIT(n, 1))
#define BELOW_4(n) (BELOW_2(n) + BIT(n, 2) + BIT(n, 3))
#define BELOW_6(n) (BELOW_4(n) + BIT(n, 4) + BIT(n, 5))
#define ONES(n) (BELOW_6(n) + BIT(n, 6) + BIT(n, 7))
#define TAKE(n, i, place) (BIT(n, i) ? (place) : 128)
#define EXPAND(n, TAKE)                                                                                                \
    {                                                                                                                  \
        TAKE(n, 0, 0), TAKE(n, 1, BIT(n, 0)), TAKE(n, 2, BELOW_2(n)), TAKE(n, 3, BELOW_2(n) + BIT(n, 2)),              \
            TAKE(n, 4, BELOW_4(n)), TAKE(n, 5, BELOW_4(n) + BIT(n, 4)), TAKE(n, 6, BELOW_6(n)),                        \
            TAKE(n, 7, BELOW_6(n) + BIT(n, 6))                                                                         \
    }
#define EXPAND_8(n) EXPAND(n, TAKE)
#define TAKE_TWO(n, i, place) TAKE(n, i, 2 * (place)), TAKE(n, i, 2 * (place) + 1)
#define EXPAND_16(n) EXPAND(n, TAKE_TWO)
#define ROWS_4(ROW, n) ROW(n), ROW((n) + 1), ROW((n) + 2), ROW((n) + 3)
#define ROWS_16(ROW, n) ROWS_4(ROW, n), ROWS_4(ROW, (n) + 4), ROWS_4(ROW, (n) + 8), ROWS_4(ROW, (n) + 12)
#define ROWS_64(ROW, n) ROWS_16(ROW, n), ROWS_16(ROW, (n) + 16), ROWS_16(ROW, (n) + 32), ROWS_16(ROW, (n) + 48)
#define ROWS(ROW) {ROWS_64(ROW, 0), ROWS_64(ROW, 64), ROWS_64(ROW, 128), ROWS_64(ROW, 192)}

const uint8_t bsx_expand_8[256][8] = ROWS(EXPAND_8);
const uint8_t bsx_expand_16[256][16] = ROWS(EXPAND_16);
const uint8_t bsx_ones[256] = ROWS(ONES);

/* ---- for every processor ---- */

#define CONVERT(name, element)                                                                                         \
    static void name(uint8_t *out, const int8_t *levels, size_t count, const void *values) {                           \
        const element *value = values;                                                                                 \
        for (size_t i = 0; i < count; i++) {                                                                           \
            memcpy(out + i * sizeof(element), &value[(uint8_t)levels[i]], sizeof(element));                            \
        }                                                                                                              \
    }
CONVERT(convert_16, uint16_t)
CONVERT(convert_32, uint32_t)
CONVERT(convert_64, uint64_t)

/* One product each, which compilers make vector code of: faster than a look-up. */
static void convert_float32(uint8_t *out, const int8_t *levels, size_t count, float step) {
    for (size_t i = 0; i < count; i++) {
        const float value = (float)levels[i] * step;
        memcpy(out + i * sizeof value, &value, sizeof value);
    }
}

void bsx_convert_portable(uint8_t *out, const int8_t *levels, size_t count, const bsx_conversion *c) {
    if (c->type == BSX_FLOAT32) convert_float32(out, levels, count, c->step);
    else if (c->item_bytes == 1) memcpy(out, levels, count);
    else if (c->item_bytes == 2) convert_16(out, levels, count, c->values);
    else if (c->item_bytes == 4) convert_32(out, levels, count, c->values);
    else convert_64(out, levels, count, c->values);
}

/* Expand without vector instructions: an element is stored at each place, and kept where the bit is 1. */
#define EXPAND_PORTABLE(name, element)                                                                                 \
    static void name(element *out, const uint8_t *bitmap, size_t bytes, const element *packed) {                       \
        for (size_t i = 0; i < bytes; i++) {                                                                           \
            const unsigned bits = bitmap[i];                                                                           \
            for (unsigned j = 0; j < 8; j++) {                                                                         \
                const unsigned one = bits >> j & 1;                                                                    \
                out[8 * i + j] = (element)(*packed & (0U - one));                                                      \
                packed += one;                                                                                         \
            }                                                                                                          \
        }                                                                                                              \
    }
EXPAND_PORTABLE(expand_8, uint8_t)
EXPAND_PORTABLE(expand_16, uint16_t)

static void expand_levels(int8_t *out, const uint8_t *bitmap, size_t bytes, const int8_t *packed) {
    expand_8((uint8_t *)out, bitmap, bytes, (const uint8_t *)packed);
}

const bsx_kernels bsx_portable = {"portable", false, bsx_convert_portable, expand_levels, NULL, expand_16, NULL};

/* ---- which there are ---- */

#if defined(BSX_X86)
/* Register states that the system saves: of xmm, ymm, and of the mask and zmm registers. */
#define SAVES_256 0x6U
#define SAVES_512 0xE6U

/* XCR0, or 0 where nothing may ask for it. (__builtin_cpu_supports brings 4 kB of code with it.) */
static unsigned saved_states(unsigned features) {
    unsigned low = 0, high = 0;
    if (features & bit_OSXSAVE) __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}
#endif

unsigned bsx_simd_levels(void) {
#if defined(BSX_X86)
    const unsigned wanted = bit_FMA | bit_F16C | bit_AVX, wanted_7 = bit_AVX2 | bit_BMI | bit_BMI2; /* and so lzcnt */
    unsigned a, b, c, d, b7 = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1)) return 1;
    const unsigned saved = saved_states(c), c1 = c;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c, &d)) return 2;
    if ((c1 & wanted) != wanted || (b7 & wanted_7) != wanted_7 || (saved & SAVES_256) != SAVES_256) return 2;
    return b7 & bit_AVX512F && (saved & SAVES_512) == SAVES_512 ? 4 : 3;
#elif defined(BSX_NEON)
    return 2;
#else
    return 1;
#endif
}

const bsx_kernels *bsx_kernels_of(unsigned simd) {
#if defined(BSX_X86)
    static const bsx_kernels *const kinds[] = {&bsx_portable, &bsx_sse4, &bsx_avx2, &bsx_avx512};
#elif defined(BSX_NEON)
    static const bsx_kernels *const kinds[] = {&bsx_portable, &bsx_neon};
#else
    static const bsx_kernels *const kinds[] = {&bsx_portable};
#endif
    return kinds[simd];
}
