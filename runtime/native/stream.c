/* stream.c - decode whole bitstreams by look-ups, several side by side.
 *
 * A stream is decoded until its bits run out, not until its count is reached: the zero bits that end it, and the zero
 * bits that it is thought to be followed by, begin no codeword. So nothing is counted codeword by codeword, and one check
 * at the end finds every way in which a stream can be wrong. */
#include "blob.h"
#include "inline.h"

#define LONG_CODEWORDS 6U /* bits on the average from which on look-ups lose: measured */
#define LOOKUPS 5U /* per 64-bit load: 5 x 11 bits, of at least 56 */

typedef struct cursor {
    const uint8_t *next; /* the byte of the next bit */
    unsigned shift;      /* bits of it that are used up, 0 to 7 */
    uint8_t *out;
} cursor;

/* A stream on its way: where its bytes and its elements end. */
typedef struct lane {
    cursor at;
    const uint8_t *end;
    const uint8_t *limit;
    bsx_stream *stream;
} lane;

typedef struct source {
    const bsx_table *table;
    const void *map;
} source;

static inline const bsx_entry *look_up(const bsx_table *table, uint64_t window) {
    return &table->entries[window >> (64 - BSX_TABLE_BITS)];
}

/* Decode codewords that no look-up resolves, as long as the window surely holds the next one. Returns what is left of
 * the window: all of it if there is no codeword, or one whose value is not below the limit. */
static uint64_t read_long(uint8_t **out, uint64_t window, const source *s) {
    const bsx_table *table = s->table;
    while (63 - bsx_ctz64(window) >= table->longest && look_up(table, window)->bytes == 0) {
        const unsigned length = bsx_code_length(window, table->code);
        if (length > table->longest) break;
        const uint64_t value = bsx_code_value(window, length, table->code);
        if (value >= table->limit) break;
        *out += bsx_store_value(*out, table, s->map, (uint32_t)value);
        window <<= length;
    }
    return window;
}

/* Decode some codewords. Reads 8 bytes; stores up to BSX_STREAM_SLOP bytes, of which c->out is moved past the valid
 * ones. False: there is no codeword, or one whose value is not below the limit. */
ALWAYS_INLINE bool read_some(cursor *c, const bsx_entry *entries, const source *s) {
    /* 63 bits of the stream, and a one below them: the zeros under it tell how many are used up. */
    uint64_t window = (bsx_load_be64(c->next) | 1) << c->shift;
    uint8_t *out = c->out;
    unsigned bytes = 0;
    for (unsigned i = 0; i < LOOKUPS; i++) {
        const bsx_entry *entry = &entries[window >> (64 - BSX_TABLE_BITS)];
        memcpy(out, entry, sizeof *entry);
        bytes = entry->bytes;
        out += bytes;
        window <<= entry->bits;
    }
    if (UNLIKELY(bytes == 0)) window = read_long(&out, window, s);
    c->out = out;
    const unsigned before = c->shift;
    const unsigned used = bsx_ctz64(window);
    c->next += used >> 3;
    c->shift = used & 7;
    return used != before;
}

/* Is there room for read_some? */
ALWAYS_INLINE bool has_room(const cursor *c, const lane *l) { return l->end - c->next >= 8 && c->out < l->limit; }

/* Decode the rest of a stream. */
static bool finish(lane *l, const source *s) {
    cursor c = l->at;
    while (has_room(&c, l)) {
        if (!read_some(&c, s->table->entries, s)) return false;
    }
    if (l->end - c.next >= 8) return false; /* bytes after the last codeword */
    uint8_t tail[16] = {0};
    const size_t left = (size_t)(l->end - c.next);
    if (left) memcpy(tail, c.next, left);
    c.next = tail;
    while (c.next < tail + left && c.out < l->limit) {
        if (!read_some(&c, s->table->entries, s)) break;
    }
    const bsx_bits bits = {tail, left, (size_t)(c.next - tail) * 8 + c.shift};
    return c.out == l->limit && bsx_at_end(&bits);
}

/* Decode `lanes` streams in turns, as far as all of them have room: what one waits for, the others compute. */
ALWAYS_INLINE void read_side_by_side(lane *l, const unsigned lanes, const source *s) {
    const unsigned i1 = lanes > 1 ? 1 : 0, i2 = lanes > 2 ? 2 : 0, i3 = lanes > 3 ? 3 : 0;
    const bsx_entry *entries = s->table->entries;
    cursor c0 = l[0].at, c1 = l[i1].at, c2 = l[i2].at, c3 = l[i3].at; /* not an array: so they stay in registers */
    bool good = true;
    while (good && has_room(&c0, &l[0]) && (lanes < 2 || has_room(&c1, &l[1])) && (lanes < 3 || has_room(&c2, &l[2])) &&
           (lanes < 4 || has_room(&c3, &l[3]))) {
        good = read_some(&c0, entries, s) && (lanes < 2 || read_some(&c1, entries, s)) &&
               (lanes < 3 || read_some(&c2, entries, s)) && (lanes < 4 || read_some(&c3, entries, s));
    }
    l[0].at = c0;
    if (lanes > 1) l[1].at = c1;
    if (lanes > 2) l[2].at = c2;
    if (lanes > 3) l[3].at = c3;
}

static void run_lanes(lane *l, unsigned lanes, const source *s) {
    if (lanes == 4) read_side_by_side(l, 4, s);
    if (lanes == 3) read_side_by_side(l, 3, s);
    if (lanes == 2) read_side_by_side(l, 2, s);
    if (lanes == 1) read_side_by_side(l, 1, s);
}

static lane lane_of(bsx_stream *stream, const bsx_table *table) {
    uint8_t *out = stream->elements;
    const lane l = {{stream->data, 0, out},
                    stream->data + stream->size,
                    out + (size_t)stream->count * table->width * table->per_value,
                    stream};
    return l;
}

void bsx_read_by_table(bsx_stream *streams, unsigned count, const bsx_table *table, const void *map) {
    const source s = {table, map};
    lane l[BSX_LANES];
    unsigned lanes = 0, begun = 0;
    for (;;) { /* a stream that is done makes room for the next one */
        while (lanes < BSX_LANES && begun < count) l[lanes++] = lane_of(&streams[begun++], table);
        if (lanes == 0) return;
        run_lanes(l, lanes, &s);
        unsigned done = 0; /* the one that stopped the others: by its end, or by a codeword that is none */
        for (unsigned i = 1; i < lanes; i++) {
            if (!has_room(&l[i].at, &l[i])) done = i;
        }
        l[done].stream->ok = finish(&l[done], &s);
        l[done] = l[--lanes];
    }
}

void bsx_read_streams(bsx_stream *streams, unsigned count, const bsx_table *table, const void *map) {
    uint64_t bits = 0, codewords = 0;
    for (unsigned i = 0; i < count; i++) {
        bits += 8 * (uint64_t)streams[i].size;
        codewords += streams[i].count;
    }
    if (bits > LONG_CODEWORDS * codewords) bsx_read_direct(streams, count, table, map);
    else bsx_read_by_table(streams, count, table, map);
}
