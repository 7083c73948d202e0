/* kernels_neon.c - the loops over weights with the 128-bit vectors of 64-bit ARM. */
#include "kernels.h"
#include "simd.h"

#if defined(BSX_NEON)
#include <arm_neon.h>
#include <string.h>

#include "bsx.h"

/* The levels of 8 weights: packed ones where the bits are 1. */
static int8x8_t expand_8(unsigned bits, const int8_t *packed) {
    return vtbl1_s8(vld1_s8(packed), vreinterpret_s8_u8(vld1_u8(bsx_expand_8[bits])));
}

static void expand_levels_neon(int8_t *out, const uint8_t *bitmap, size_t bytes, const int8_t *packed) {
    for (size_t i = 0; i < bytes; i++) {
        const unsigned bits = bitmap[i];
        vst1_s8(out + 8 * i, expand_8(bits, packed));
        packed += bsx_ones[bits];
    }
}

static void expand_symbols_neon(uint16_t *out, const uint8_t *bitmap, size_t bytes, const uint16_t *packed) {
    for (size_t i = 0; i < bytes; i++) {
        const unsigned bits = bitmap[i];
        const uint8x16_t elements = vreinterpretq_u8_u16(vld1q_u16(packed));
        vst1q_u16(out + 8 * i, vreinterpretq_u16_u8(vqtbl1q_u8(elements, vld1q_u8(bsx_expand_16[bits]))));
        packed += bsx_ones[bits];
    }
}

static float32x4_t product(int16x4_t levels, float32x4_t step) {
    return vmulq_f32(vcvtq_f32_s32(vmovl_s16(levels)), step);
}

/* float32 to bfloat16, nearest, ties to even; the values are no NaN. */
static uint16x4_t bfloat16_of(float32x4_t value) {
    const uint32x4_t bits = vreinterpretq_u32_f32(value);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    return vshrn_n_u32(vaddq_u32(vaddq_u32(bits, odd), vdupq_n_u32(0x7FFF)), 16);
}

/* Convert 8 levels. */
static inline void convert_8(uint8_t *out, int8x8_t levels, int type, float32x4_t step) {
    const int16x8_t wide = vmovl_s8(levels);
    const float32x4_t low = product(vget_low_s16(wide), step), high = product(vget_high_s16(wide), step);
    if (type == BSX_FLOAT32) {
        vst1q_u8(out, vreinterpretq_u8_f32(low));
        vst1q_u8(out + 16, vreinterpretq_u8_f32(high));
    } else if (type == BSX_FLOAT16) {
        vst1q_u8(out, vreinterpretq_u8_f16(vcombine_f16(vcvt_f16_f32(low), vcvt_f16_f32(high))));
    } else if (type == BSX_BFLOAT16) {
        vst1q_u8(out, vreinterpretq_u8_u16(vcombine_u16(bfloat16_of(low), bfloat16_of(high))));
    } else if (type == BSX_INT16) {
        vst1q_u8(out, vreinterpretq_u8_s16(wide));
    } else {
        vst1q_u8(out, vreinterpretq_u8_s32(vmovl_s16(vget_low_s16(wide))));
        vst1q_u8(out + 16, vreinterpretq_u8_s32(vmovl_s16(vget_high_s16(wide))));
    }
}

static void convert_neon(uint8_t *out, const int8_t *levels, size_t count, const bsx_conversion *c) {
    static const int types[] = {BSX_FLOAT32, BSX_FLOAT16, BSX_BFLOAT16, BSX_INT16, BSX_INT32};
    const float32x4_t step = vdupq_n_f32(c->step);
    size_t done = 0;
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) { /* one loop for each, so that none asks in the loop */
        if (c->type != types[t]) continue;
        for (; done + 8 <= count; done += 8) {
            convert_8(out + done * c->item_bytes, vld1_s8(levels + done), types[t], step);
        }
    }
    bsx_convert_portable(out + done * c->item_bytes, levels + done, count - done, c);
}

static void expand_float32_neon(uint8_t *out, const uint8_t *bitmap, size_t bytes, const int8_t *packed,
                                const bsx_conversion *c) {
    const float32x4_t step = vdupq_n_f32(c->step);
    for (size_t i = 0; i < bytes; i++) {
        const unsigned bits = bitmap[i];
        convert_8(out + 32 * i, expand_8(bits, packed), BSX_FLOAT32, step);
        packed += bsx_ones[bits];
    }
}

const bsx_kernels bsx_neon = {"neon", false, convert_neon, expand_levels_neon, expand_float32_neon,
                              expand_symbols_neon, NULL};
#endif
