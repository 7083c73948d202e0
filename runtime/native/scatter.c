/* scatter.c - from a stream's elements to the values that they stand for, which are copied as bits, whatever their type. */
#include "blob.h"
#include "inline.h"

#define AT_A_TIME 512U /* coded weights; what lies between two such places mostly stays in the first-level cache */

/* Write the value of element i. */
ALWAYS_INLINE void put(uint8_t *out, const bsx_elements *from, size_t i, const unsigned size, const bool wide) {
    const size_t element = wide ? ((const uint16_t *)from->elements)[i] : ((const uint8_t *)from->elements)[i];
    if (size == 1 && !wide) *out = (uint8_t)element;
    else memcpy(out, (const uint8_t *)from->values + element * size, size);
}

ALWAYS_INLINE void gather(uint8_t *out, size_t count, const bsx_elements *from, const unsigned size, const bool wide) {
    const bsx_elements f = *from;
    size_t i = 0;
    for (; i + 4 <= count; i += 4) { /* the loop itself takes as long as its body */
        for (size_t j = i; j < i + 4; j++) put(out + j * size, &f, j, size, wide);
    }
    for (; i < count; i++) put(out + i * size, &f, i, size, wide);
}

/* `count` times the value of element 0. */
static void fill(uint8_t *out, size_t count, const bsx_elements *from) {
    static const uint8_t zeros[8] = {0};
    const size_t size = from->item_bytes, bytes = count * size;
    uint8_t value[8] = {0};
    if (size > 1 || from->wide) memcpy(value, from->values, size);
    if (memcmp(value, zeros, size) == 0) {
        memset(out, 0, bytes);
    } else if (count > 0) { /* one, then as many again as there are */
        memcpy(out, value, size);
        for (size_t done = size; done < bytes; done *= 2) memcpy(out + done, out, bytes - done < done ? bytes - done : done);
    }
}

ALWAYS_INLINE bool scatter(uint8_t *out, size_t weights, const uint16_t *runs, size_t coded, const bsx_elements *from,
                           const unsigned size, const bool wide) {
    const bsx_elements f = *from;
    size_t i = 0;
    while (i < coded) {
        const size_t end = coded - i < AT_A_TIME ? coded : i + AT_A_TIME;
        uint32_t span = (uint32_t)(end - i);
        for (size_t j = i; j < end; j++) span += runs[j];
        if (span > weights) return false;
        fill(out, span, &f);
        weights -= span;
        for (; i + 4 <= end; i += 4) { /* four places at a time, so that little else is done than loads and stores */
            const size_t a = runs[i], b = a + runs[i + 1] + 1, c = b + runs[i + 2] + 1, d = c + runs[i + 3] + 1;
            put(out + a * size, &f, i, size, wide);
            put(out + b * size, &f, i + 1, size, wide);
            put(out + c * size, &f, i + 2, size, wide);
            put(out + d * size, &f, i + 3, size, wide);
            out += (d + 1) * size;
        }
        for (; i < end; i++) {
            out += runs[i] * size;
            put(out, &f, i, size, wide);
            out += size;
        }
    }
    fill(out, weights, &f);
    return true;
}

ALWAYS_INLINE bool scatter_sized(uint8_t *out, size_t weights, const uint16_t *runs, size_t coded,
                                 const bsx_elements *from, const unsigned size) {
    if (from->wide) return scatter(out, weights, runs, coded, from, size, true);
    return scatter(out, weights, runs, coded, from, size, false);
}

bool bsx_scatter(uint8_t *out, size_t weights, const uint16_t *runs, size_t coded, const bsx_elements *from) {
    if (from->item_bytes == 1) return scatter_sized(out, weights, runs, coded, from, 1);
    if (from->item_bytes == 2) return scatter_sized(out, weights, runs, coded, from, 2);
    if (from->item_bytes == 4) return scatter_sized(out, weights, runs, coded, from, 4);
    return scatter_sized(out, weights, runs, coded, from, 8);
}

ALWAYS_INLINE void gather_sized(uint8_t *out, size_t count, const bsx_elements *from, const unsigned size) {
    if (from->wide) gather(out, count, from, size, true);
    else gather(out, count, from, size, false);
}

void bsx_gather(uint8_t *out, size_t count, const bsx_elements *from) {
    if (from->item_bytes == 1) gather_sized(out, count, from, 1);
    if (from->item_bytes == 2) gather_sized(out, count, from, 2);
    if (from->item_bytes == 4) gather_sized(out, count, from, 4);
    if (from->item_bytes == 8) gather_sized(out, count, from, 8);
}
