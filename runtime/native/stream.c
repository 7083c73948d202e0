/* stream.c - decode whole bitstreams by look-ups, several side by side.
 *
 * A stream is decoded until its bits run out, not until its count is reached: the zero bits that end it, and the zero
 * bits that it is thought to be followed by, begin no codeword. So nothing is counted codeword by codeword, and one check
 * at the end finds every way in which a stream can be wrong. */
#include "blob.h"
#include "inline.h"
#include "simd.h"

#define LONG_CODEWORDS 9U /* bits on the average from which on look-ups lose: measured */
#define LOOKUPS 4U /* per 64-bit load: 4 x 11 bits, of at least 56; then one more codeword */
#define ROUND_BYTES (LOOKUPS * BSX_ENTRY_BYTES + 4U)

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
    const uint32_t *map;
} source;

/* Decode some codewords. Reads 8 bytes; stores up to ROUND_BYTES bytes, of which c->out is moved past the valid ones.
 * After the look-ups comes one more codeword, by its zero bits: those that are too long for the table cannot be predicted,
 * and so no branch depends on them. False: there is no such codeword, or it is an escape of Golomb-Rice, or its value is
 * not below the limit. */
ALWAYS_INLINE bool read_some(cursor *c, const bsx_shape k, const bsx_table *table, const uint32_t *map) {
    const unsigned order = table->code.order;
    const uint64_t bias = UINT64_C(1) << order;
    /* 63 bits of the stream, and a one below them: the zeros under it tell how many are used up. */
    uint64_t window = (bsx_load_be64(c->next) | 1) << c->shift;
    uint8_t *out = c->out;
    for (unsigned i = 0; i < LOOKUPS; i++) {
        const uint64_t next = window >> (64 - BSX_TABLE_BITS);
        const uint64_t contents = table->contents[next];
        memcpy(out, table->elements[next], BSX_ENTRY_BYTES);
        out += contents >> 8;
        window <<= contents & 63;
    }
    unsigned used = bsx_ctz64(window);
    const unsigned zeros = bsx_clz64(window);
    const unsigned length = (k.family == BSX_EXP_GOLOMB ? 2 * zeros : zeros) + order + 1;
    bool good = true;
    if (!UNLIKELY(used + length > 63)) { /* else its last bits are still to come */
        const uint64_t word = window >> (64 - length); /* the codeword's one bit and what follows it */
        const uint64_t biased = k.family == BSX_EXP_GOLOMB ? word : word + ((uint64_t)zeros << order);
        good = zeros <= table->zeros && biased < table->limit + bias;
        if (!UNLIKELY(!good)) {
            const uint32_t elements = k.mapped ? map[biased - bias] : (uint16_t)(biased - bias + table->base);
            memcpy(out, &elements, sizeof elements);
            out += table->bytes;
            used += length;
        }
    } else {
        good = used != c->shift;
    }
    c->out = out;
    c->next += used >> 3;
    c->shift = used & 7;
    return good;
}

/* Decode a codeword of any kind. Reads 8 bytes. False, and nothing is read: there is none, or its value is not below the
 * limit. */
static bool read_any(cursor *c, const source *s) {
    const bsx_table *table = s->table;
    const uint64_t window = (bsx_load_be64(c->next) | 1) << c->shift;
    const unsigned length = bsx_code_length(window, table->code);
    if (length > table->longest || c->shift + length > 63) return false;
    const uint64_t value = bsx_code_value(window, length, table->code);
    if (value >= table->limit) return false;
    bsx_store_value(c->out, table, s->map, (uint32_t)value);
    c->out += table->bytes;
    c->next += (c->shift + length) >> 3;
    c->shift = (c->shift + length) & 7;
    return true;
}

/* Is there room for read_some? */
ALWAYS_INLINE bool has_room(const cursor *c, const lane *l) { return l->end - c->next >= 8 && c->out < l->limit; }

/* Decode the rest of a stream, codeword by codeword. */
static bool finish(lane *l, const source *s) {
    cursor c = l->at;
    while (has_room(&c, l)) {
        if (!read_any(&c, s)) return false;
    }
    if (l->end - c.next >= 8) return false; /* bytes after the last codeword */
    uint8_t tail[16] = {0};
    const size_t left = (size_t)(l->end - c.next);
    if (left) memcpy(tail, c.next, left);
    c.next = tail;
    while (c.next < tail + left && c.out < l->limit && read_any(&c, s)) continue;
    const bsx_bits bits = {tail, left, (size_t)(c.next - tail) * 8 + c.shift};
    return c.out == l->limit && bsx_at_end(&bits);
}

/* How often read_some surely has room: it moves on by at most 7 bytes, and stores at most ROUND_BYTES valid ones. */
static size_t sure_rounds(const lane *l) {
    const size_t bytes = (size_t)(l->end - l->at.next);
    const size_t by_input = bytes < 8 ? 0 : (bytes - 8) / 7 + 1;
    const size_t by_output = l->at.out < l->limit ? ((size_t)(l->limit - l->at.out) - 1) / ROUND_BYTES + 1 : 0;
    return by_input < by_output ? by_input : by_output;
}

/* Decode `rounds` times some codewords of each lane in turns: what one waits for, the others compute. Returns the lane
 * that had none, else `lanes`. */
ALWAYS_INLINE unsigned read_rounds(lane *l, const unsigned lanes, uint64_t rounds, const bsx_shape k, const source *s) {
    const unsigned i1 = lanes > 1 ? 1 : 0, i2 = lanes > 2 ? 2 : 0, i3 = lanes > 3 ? 3 : 0;
    cursor c0 = l[0].at, c1 = l[i1].at, c2 = l[i2].at, c3 = l[i3].at; /* not an array: so they stay in registers */
    const bsx_table *const table = s->table; /* the loop's stores might change what s points to */
    const uint32_t *const map = s->map;
    unsigned at = lanes;
    for (; rounds > 0 && at == lanes; rounds--) {
        if (!read_some(&c0, k, table, map)) at = 0;
        else if (lanes > 1 && !read_some(&c1, k, table, map)) at = 1;
        else if (lanes > 2 && !read_some(&c2, k, table, map)) at = 2;
        else if (lanes > 3 && !read_some(&c3, k, table, map)) at = 3;
    }
    l[0].at = c0;
    if (lanes > 1) l[1].at = c1;
    if (lanes > 2) l[2].at = c2;
    if (lanes > 3) l[3].at = c3;
    return at;
}

#define READ_ROUNDS read_rounds
#include "lanes.h"

/* Decode streams as far as all of them have room. Returns the one that has not, or that has no codeword. */
static unsigned run_lanes(lane *l, unsigned count, const source *s) {
    const unsigned lanes = count == BSX_LANES ? BSX_LANES : 1;
    for (;;) {
        size_t rounds = SIZE_MAX;
        unsigned least = 0, at;
        for (unsigned i = 0; i < lanes; i++) {
            const size_t sure = sure_rounds(&l[i]);
            if (sure < rounds) least = i;
            if (sure < rounds) rounds = sure;
        }
        if (rounds == 0) return least;
        at = read_lanes(l, lanes, rounds, s);
        if (at < lanes && !(has_room(&l[at].at, &l[at]) && read_any(&l[at].at, s))) return at;
    }
}

static lane lane_of(bsx_stream *stream, const bsx_table *table) {
    uint8_t *out = stream->elements;
    const lane l = {{stream->data, 0, out},
                    stream->data + stream->size,
                    out + (size_t)stream->count * table->bytes,
                    stream};
    return l;
}

void bsx_read_by_table(bsx_stream *streams, unsigned count, const bsx_table *table, const uint32_t *map) {
    const source s = {table, map};
    lane l[BSX_LANES];
    unsigned lanes = 0, begun = 0;
    for (;;) { /* a stream that is done makes room for the next one */
        while (lanes < BSX_LANES && begun < count) l[lanes++] = lane_of(&streams[begun++], table);
        if (lanes == 0) return;
        const unsigned done = run_lanes(l, lanes, &s);
        l[done].stream->ok = finish(&l[done], &s);
        l[done] = l[--lanes];
    }
}

void bsx_read_streams(bsx_stream *streams, unsigned count, const bsx_table *table, const uint32_t *map) {
    uint64_t bits = 0, codewords = 0;
    for (unsigned i = 0; i < count; i++) {
        bits += 8 * (uint64_t)streams[i].size;
        codewords += streams[i].count;
    }
    if (bits > LONG_CODEWORDS * codewords) bsx_read_direct(streams, count, table, map);
    else bsx_read_by_table(streams, count, table, map);
}
