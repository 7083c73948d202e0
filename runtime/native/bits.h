/* bits.h - bits, most significant first (section 3), and exp-Golomb codewords read one at a time. */
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

/* Length of the codeword of x in order k: 2*floor(log2(x + 2^k)) - k + 1. */
static inline unsigned bsx_eg_bits(uint64_t x, unsigned order) {
    return 2 * (63 - bsx_clz64(x + (UINT64_C(1) << order))) - order + 1;
}

/* Length of the codeword that starts at the window's top bit; window is not 0. May exceed the bits that are there. */
static inline unsigned bsx_eg_length(uint64_t window, unsigned order) { return 2 * bsx_clz64(window) + order + 1; }

/* Value of that codeword; length <= 64. */
static inline uint64_t bsx_eg_value(uint64_t window, unsigned length, unsigned order) {
    return (window >> (64 - length)) - (UINT64_C(1) << order);
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
 * (max + 2^order below 2^28, so that a longer codeword than the window's bits is above max). */
static inline bool bsx_read_eg(bsx_bits *bits, unsigned order, uint64_t max, uint64_t *value) {
    const uint64_t window = bsx_peek(bits);
    if (window == 0) return false;
    const unsigned length = bsx_eg_length(window, order);
    if (length > BSX_WINDOW_BITS || length > 8 * (uint64_t)bits->size - bits->used) return false;
    *value = bsx_eg_value(window, length, order);
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
