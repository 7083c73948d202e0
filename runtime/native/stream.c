/* stream.c - decode whole bitstreams, several side by side.
 *
 * A stream is decoded until its bits run out, not until its count is reached: the zero bits that end it, and the zero
 * bits that it is thought to be followed by, begin no codeword. So nothing is counted symbol by symbol, and one check
 * at the end finds every way in which a stream can be wrong. */
#include <string.h>

#include "bits.h"
#include "blob.h"

#define LOOKUPS 5U /* per 64-bit load: 5 x 11 bits, of at least 56 */

#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE static inline
#endif

typedef struct cursor {
    const uint8_t *next; /* the byte of the next bit */
    unsigned shift;      /* bits of it that are used up, 0 to 7 */
    uint16_t *out;
} cursor;

static inline const bsx_entry *look_up(const bsx_table *table, uint64_t window) {
    return &table->entries[window >> (64 - BSX_TABLE_BITS)];
}

/* Decode codewords that no look-up resolves, as long as the window surely holds the next one. Returns what is left of
 * the window: all of it if there is no codeword, or one whose value is not below the limit. */
static uint64_t read_long(uint16_t **out, uint64_t window, const bsx_table *table) {
    while (63 - bsx_ctz64(window) >= table->longest && look_up(table, window)->count == 0) {
        const unsigned length = bsx_eg_length(window, table->order);
        if (length > table->longest) break;
        const uint64_t value = bsx_eg_value(window, length, table->order);
        if (value >= table->limit) break;
        *(*out)++ = (uint16_t)value;
        window <<= length;
    }
    return window;
}

/* Decode some codewords. Reads 8 bytes; stores up to BSX_STREAM_SLOP values, of which c->out is moved past the valid
 * ones. False: there is no codeword, or one whose value is not below the limit. */
ALWAYS_INLINE bool read_some(cursor *c, const bsx_table *table) {
    /* 63 bits of the stream, and a one below them: the zeros under it tell how many are used up. */
    uint64_t window = (bsx_load_be64(c->next) | 1) << c->shift;
    uint16_t *out = c->out;
    unsigned count = 0;
    for (unsigned i = 0; i < LOOKUPS; i++) {
        const bsx_entry *entry = look_up(table, window);
        memcpy(out, entry, sizeof *entry);
        count = entry->count;
        out += count;
        window <<= entry->bits;
    }
    if (count == 0) window = read_long(&out, window, table);
    c->out = out;
    const unsigned before = c->shift;
    const unsigned used = bsx_ctz64(window);
    c->next += used >> 3;
    c->shift = used & 7;
    return used != before;
}

/* Is there room for read_some? */
static inline bool has_room(const cursor *c, const uint8_t *end, const uint16_t *limit) {
    return end - c->next >= 8 && c->out < limit;
}

/* Decode the rest of a stream: `limit` is the end of its count, `end` that of its bytes. */
static bool finish(cursor *c, const uint8_t *end, const uint16_t *limit, const bsx_table *table) {
    while (has_room(c, end, limit)) {
        if (!read_some(c, table)) return false;
    }
    if (end - c->next >= 8) return false; /* bytes after the last codeword */
    uint8_t tail[16] = {0};
    const size_t left = (size_t)(end - c->next);
    if (left) memcpy(tail, c->next, left);
    c->next = tail;
    while (c->next < tail + left && c->out < limit) {
        if (!read_some(c, table)) break;
    }
    const size_t used = (size_t)(c->next - tail) * 8 + c->shift;
    const bsx_bits bits = {tail, left, used};
    return c->out == limit && bsx_at_end(&bits);
}

/* Decode four streams in turns, as far as all of them have room: what one waits for, the others compute. */
static void read_side_by_side(cursor *c, const uint8_t *const *end, const uint16_t *const *limit,
                              const bsx_table *table) {
    cursor c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3]; /* not an array: compilers keep these in registers */
    bool good = true;
    while (good && has_room(&c0, end[0], limit[0]) && has_room(&c1, end[1], limit[1]) &&
           has_room(&c2, end[2], limit[2]) && has_room(&c3, end[3], limit[3])) {
        good = read_some(&c0, table) && read_some(&c1, table) && read_some(&c2, table) && read_some(&c3, table);
    }
    c[0] = c0;
    c[1] = c1;
    c[2] = c2;
    c[3] = c3;
}

void bsx_read_streams(bsx_stream *streams, unsigned lanes, const bsx_table *table) {
    cursor c[BSX_LANES];
    const uint8_t *end[BSX_LANES];
    const uint16_t *limit[BSX_LANES];
    for (unsigned i = 0; i < lanes; i++) {
        c[i] = (cursor){streams[i].data, 0, streams[i].values};
        end[i] = streams[i].data + streams[i].size;
        limit[i] = streams[i].values + streams[i].count;
    }
    if (lanes == BSX_LANES) read_side_by_side(c, end, limit, table);
    for (unsigned i = 0; i < lanes; i++) streams[i].ok = finish(&c[i], end[i], limit[i], table);
}
