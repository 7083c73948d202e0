/* bits.h - bits, most significant first (section 3), and codewords, read one at a time. */
#ifndef BSX_BITS_H
#define BSX_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bsx writes decoded weights and reads RAW blocks as little-endian numbers: big-endian hosts are not supported"
#endif

#define BSX_MAX_ORDER 15U
#define BSX_WINDOW_BITS 57U /* valid bits of a 64-bit load after dropping up to 7 bits of its first byte */

/* Compilers turn these byte-wise forms into single loads, swaps and stores. */
static inline uint64_t bsx_load_be64(const uint8_t *p) {
    return (uint64_t)p[0] << 56 | (uint64_t)p[1] << 48 | (uint64_t)p[2] << 40 | (uint64_t)p[3] << 32 |
           (uint64_t)p[4] << 24 | (uint64_t)p[5] << 16 | (uint64_t)p[6] << 8 | (uint64_t)p[7];
}

static inline uint16_t bsx_load_le16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static inline uint32_t bsx_load_le32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t bsx_load_le64(const uint8_t *p) {
    return (uint64_t)bsx_load_le32(p) | (uint64_t)bsx_load_le32(p + 4) << 32;
}

/* Zero bits above the highest one bit; x is not 0. */
static inline unsigned bsx_clz64(uint64_t x) {
#if defined(__GNUC__)
    return (unsigned)__builtin_clzll(x);
#else
    unsigned zeros = 0;
    for (; !(x >> 63); x <<= 1) zeros++;
    return zeros;
#endif
}

/* Zero bits below the lowest one bit; x is not 0. */
static inline unsigned bsx_ctz64(uint64_t x) {
#if defined(__GNUC__)
    return (unsigned)__builtin_ctzll(x);
#else
    unsigned zeros = 0;
    for (; !(x & 1); x >>= 1) zeros++;
    return zeros;
#endif
}

/* A code byte of section 3, taken apart. */
typedef struct bsx_code {
    unsigned family, order;
} bsx_code;

enum { BSX_EXP_GOLOMB = 0, BSX_GOLOMB_RICE = 1 };

#define BSX_RICE_ESCAPE 16U /* quotients from here on are coded in exp-Golomb */

static inline bsx_code bsx_code_of(uint8_t byte) {
    const bsx_code code = {byte >> 4, byte & 15};
    return code;
}

static inline unsigned bsx_eg_bits(uint64_t x, unsigned order) {
    return 2 * (63 - bsx_clz64(x + (UINT64_C(1) << order))) - order + 1;
}

/* Length of the codeword of x < 2^32. */
static inline unsigned bsx_code_bits(uint64_t x, bsx_code code) {
    if (code.family == BSX_EXP_GOLOMB) return bsx_eg_bits(x, code.order);
    const uint64_t q = x >> code.order;
    if (q < BSX_RICE_ESCAPE) return (unsigned)q + 1 + code.order;
    return BSX_RICE_ESCAPE + bsx_eg_bits(x - ((uint64_t)BSX_RICE_ESCAPE << code.order), code.order);
}

/* Length of the longest codeword of values below the limit; 1 if there is none. */
static inline unsigned bsx_longest(uint32_t limit, bsx_code code) {
    return limit ? bsx_code_bits(limit - 1, code) : 1; /* codewords of greater values are never shorter */
}

/* Length of the codeword that starts at the window's top bit; window is not 0. May exceed the bits that are there. */
static inline unsigned bsx_code_length(uint64_t window, bsx_code code) {
    const unsigned zeros = bsx_clz64(window);
    if (code.family == BSX_EXP_GOLOMB) return 2 * zeros + code.order + 1;
    return zeros + (zeros < BSX_RICE_ESCAPE ? 0 : zeros - BSX_RICE_ESCAPE) + code.order + 1;
}

/* Value of that codeword; length <= 64. */
static inline uint64_t bsx_code_value(uint64_t window, unsigned length, bsx_code code) {
    const uint64_t word = window >> (64 - length); /* the one bit and what follows it */
    if (code.family == BSX_EXP_GOLOMB) return word - (UINT64_C(1) << code.order);
    const unsigned zeros = bsx_clz64(window);
    const uint64_t q = (zeros < BSX_RICE_ESCAPE ? zeros : BSX_RICE_ESCAPE) - UINT64_C(1);
    return word + (q << code.order); /* the one bit stands for one more */
}

/* A bitstream read codeword by codeword; bits past its end are zero. */
typedef struct bsx_bits {
    const uint8_t *data;
    size_t size;
    uint64_t used; /* bits */
} bsx_bits;

/* The next 57 bits at the top of a word. */
static inline uint64_t bsx_peek(const bsx_bits *bits) {
    const size_t at = (size_t)(bits->used >> 3);
    uint64_t window = 0;
    if (bits->size - at >= 8) {
        window = bsx_load_be64(bits->data + at);
    } else {
        for (size_t i = at; i < bits->size; i++) window |= (uint64_t)bits->data[i] << (56 - 8 * (i - at));
    }
    return window << (bits->used & 7);
}

/* Read one codeword. False, and nothing is read: it does not end within the stream, or its value is above max
 * (whose codeword is at most 57 bits long). */
static inline bool bsx_read_code(bsx_bits *bits, bsx_code code, uint64_t max, uint64_t *value) {
    const uint64_t window = bsx_peek(bits);
    if (window == 0) return false;
    const unsigned length = bsx_code_length(window, code);
    if (length > BSX_WINDOW_BITS || length > 8 * (uint64_t)bits->size - bits->used) return false;
    *value = bsx_code_value(window, length, code);
    if (*value > max) return false;
    bits->used += length;
    return true;
}

/* Does the stream end here as section 3 says: fewer than 8 bits left, all of them zero? Not if more is used than there
 * is. */
static inline bool bsx_at_end(const bsx_bits *bits) {
    const uint64_t total = 8 * (uint64_t)bits->size;
    return bits->used <= total && total - bits->used < 8 && bsx_peek(bits) == 0;
}

#endif
