/* values.c - from levels to weights (section 6). */
#include "blob.h"

unsigned bsx_type_bytes(int type) {
    switch (type) {
    case BSX_INT8: return 1;
    case BSX_INT16:
    case BSX_FLOAT16:
    case BSX_BFLOAT16: return 2;
    case BSX_INT32:
    case BSX_FLOAT32: return 4;
    case BSX_FLOAT64: return 8;
    default: return 0;
    }
}

bool bsx_type_holds(int type, const bsx_head *head) {
    const int32_t largest = type == BSX_INT8 ? INT8_MAX : type == BSX_INT16 ? INT16_MAX : INT32_MAX;
    return head->greatest_level <= largest && head->least_level >= -largest - 1;
}

static uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* x / 2^shift to the nearest, ties to even; 1 <= shift <= 31. */
static uint32_t round_shift(uint32_t x, unsigned shift) {
    const uint32_t half = UINT32_C(1) << (shift - 1);
    const uint32_t odd = x >> shift & 1;
    return (uint32_t)(((uint64_t)x + half - 1 + odd) >> shift);
}

/* The carry of the rounding runs into the exponent, and from the largest finite value into infinity: both are right. */
static uint16_t bfloat16_of(float value) { return (uint16_t)round_shift(float_bits(value), 16); }

static uint16_t float16_of(float value) {
    const uint32_t bits = float_bits(value);
    const uint32_t sign = bits >> 16 & 0x8000;
    const uint32_t magnitude = bits & 0x7FFFFFFF;
    if (magnitude >= 0x47800000) return (uint16_t)(sign | 0x7C00); /* from 2^16 on: infinity */
    if (magnitude >= 0x38800000) { /* from 2^-14 on: normal, the exponent's bias falls from 127 to 15 */
        return (uint16_t)(sign | round_shift(magnitude - (UINT32_C(112) << 23), 13));
    }
    if (magnitude < 0x33000000) return (uint16_t)sign; /* below 2^-25: zero */
    const uint32_t mantissa = (magnitude & 0x7FFFFF) | 0x800000;
    return (uint16_t)(sign | round_shift(mantissa, 126 - (magnitude >> 23))); /* subnormal: multiples of 2^-24 */
}

void bsx_fill_values(const int32_t *levels, size_t count, float step, int type, void *values) {
    for (size_t i = 0; i < count; i++) {
        const volatile float product = (float)levels[i] * step; /* volatile: no excess precision on x87 */
        const float value = product;
        switch (type) {
        case BSX_FLOAT32: ((float *)values)[i] = value; break;
        case BSX_FLOAT64: ((double *)values)[i] = (double)value; break;
        case BSX_FLOAT16: ((uint16_t *)values)[i] = float16_of(value); break;
        case BSX_BFLOAT16: ((uint16_t *)values)[i] = bfloat16_of(value); break;
        case BSX_INT8: ((int8_t *)values)[i] = (int8_t)levels[i]; break;
        case BSX_INT16: ((int16_t *)values)[i] = (int16_t)levels[i]; break;
        default: ((int32_t *)values)[i] = levels[i]; break;
        }
    }
}
