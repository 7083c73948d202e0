/* codebook.c - from symbols to levels (section 4), and from levels to weights (section 6). */
#include <string.h>

#include "bits.h"
#include "blob.h"

/* z(l) = 2|l| - (1 if l > 0 else 0): 0, +1, -1, +2, -2 ... */
static int32_t level_of(int64_t z) { return (int32_t)(z & 1 ? (z + 1) / 2 : -(z / 2)); }

bool bsx_read_codebook(const uint8_t *blob, const bsx_head *head, int32_t *levels) {
    bsx_bits bits = {blob + head->codebook_offset, head->codebook_bytes, 0};
    int64_t z = 0;
    for (uint32_t i = 0; i < head->symbols; i++) {
        uint64_t s;
        if (!bsx_read_eg(&bits, head->codebook_code, UINT64_C(4) * BSX_MAX_LEVEL, &s)) return false;
        z += s & 1 ? (int64_t)(s / 2 + 1) : -(int64_t)(s / 2);
        if (z < 0 || z > 2 * BSX_MAX_LEVEL) return false;
        if (levels) levels[i] = level_of(z);
    }
    return bsx_at_end(&bits);
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

void bsx_fill_values(const int32_t *levels, size_t count, float step, unsigned dtype, void *values) {
    for (size_t i = 0; i < count; i++) {
        const volatile float product = (float)levels[i] * step; /* volatile: no excess precision on x87 */
        const float value = product;
        if (dtype == BSX_FLOAT32) ((float *)values)[i] = value;
        if (dtype == BSX_FLOAT64) ((double *)values)[i] = (double)value;
        if (dtype == BSX_FLOAT16) ((uint16_t *)values)[i] = float16_of(value);
        if (dtype == BSX_BFLOAT16) ((uint16_t *)values)[i] = bfloat16_of(value);
    }
}
