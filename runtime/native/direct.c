/* direct.c - decode whole bitstreams from the zero bits that each codeword starts with, several side by side: for codes
 * whose codewords are too long for a table to hold several of them. */
#include "blob.h"
#include "inline.h"
#include "simd.h"

typedef struct lane {
    const uint8_t *data;
    uint8_t *out;
    uint64_t used; /* bits */
    uint32_t size; /* bytes */
    uint32_t left; /* codewords */
    bsx_stream *stream;
} lane;

typedef struct source {
    const bsx_table *table;
    const uint32_t *map;
    unsigned batch; /* codewords that 57 bits surely hold */
} source;

/* A lane's moving parts, and its bytes. */
typedef struct cursor {
    const uint8_t *data;
    uint64_t used;
    uint8_t *out;
} cursor;

/* Decode the next batch. Reads 8 bytes. False, and nothing is read: there is a codeword that the loop is not for, or
 * none, or one whose value is not below the limit. */
ALWAYS_INLINE bool read_batch(cursor *c, const bsx_shape k, const bsx_table *table, const uint32_t *map,
                              const unsigned batch) {
    const unsigned order = table->code.order, most = table->zeros, bytes = table->bytes;
    const uint64_t bias = UINT64_C(1) << order, limit = table->limit + bias, base = table->base - bias;
    uint64_t window = bsx_load_be64(c->data + (c->used >> 3)) << (c->used & 7);
    uint64_t used = c->used;
    uint8_t *out = c->out;
    for (unsigned i = 0; i < batch; i++) {
        const unsigned zeros = bsx_clz64(window | 1);
        if (UNLIKELY(zeros > most)) return false;
        const unsigned length = (k.family == BSX_EXP_GOLOMB ? 2 * zeros : zeros) + order + 1;
        const uint64_t word = window >> (64 - length); /* the codeword's one bit and what follows it */
        const uint64_t biased = k.family == BSX_EXP_GOLOMB ? word : word + ((uint64_t)zeros << order);
        if (UNLIKELY(biased >= limit)) return false;
        const uint32_t elements = k.mapped ? map[biased - bias] : (uint16_t)(biased + base);
        memcpy(out, &elements, sizeof elements);
        out += bytes;
        used += length;
        window <<= length;
    }
    c->out = out;
    c->used = used;
    return true;
}

/* Batches that the lane surely has the codewords and the bytes for. */
static uint64_t sure_batches(const lane *l, const source *s) {
    const uint64_t bits = 8 * (uint64_t)l->size - l->used;
    const uint64_t by_bits = bits < 64 ? 0 : (bits - 64) / BSX_WINDOW_BITS + 1;
    const uint64_t by_count = l->left / s->batch;
    return by_bits < by_count ? by_bits : by_count;
}

/* Decode `rounds` batches of each lane in turns: what one waits for, the others compute. Returns the lane at which it
 * stopped early, since read_batch did, else `lanes`. */
ALWAYS_INLINE unsigned read_rounds(lane *l, const unsigned lanes, uint64_t rounds, const bsx_shape k, const source *s) {
    const unsigned batch = s->batch;
    const unsigned i1 = lanes > 1 ? 1 : 0, i2 = lanes > 2 ? 2 : 0, i3 = lanes > 3 ? 3 : 0;
    cursor c0 = {l[0].data, l[0].used, l[0].out}, c1 = {l[i1].data, l[i1].used, l[i1].out};
    cursor c2 = {l[i2].data, l[i2].used, l[i2].out}, c3 = {l[i3].data, l[i3].used, l[i3].out};
    const bsx_table *const table = s->table; /* the loop's stores might change what s points to */
    const uint32_t *const map = s->map;
    unsigned at = lanes;
    for (; rounds > 0 && at == lanes; rounds--) {
        if (!read_batch(&c0, k, table, map, batch)) at = 0;
        else if (lanes > 1 && !read_batch(&c1, k, table, map, batch)) at = 1;
        else if (lanes > 2 && !read_batch(&c2, k, table, map, batch)) at = 2;
        else if (lanes > 3 && !read_batch(&c3, k, table, map, batch)) at = 3;
    }
    const cursor moved[BSX_LANES] = {c0, c1, c2, c3};
    for (unsigned i = 0; i < lanes; i++) {
        l[i].left -= (uint32_t)((size_t)(moved[i].out - l[i].out) / s->table->bytes);
        l[i].used = moved[i].used;
        l[i].out = moved[i].out;
    }
    return at;
}

#define READ_ROUNDS read_rounds
#include "lanes.h"

/* Decode one codeword of any kind. */
static bool read_one(lane *l, const source *s) {
    bsx_bits bits = {l->data, l->size, l->used};
    uint64_t value;
    if (s->table->limit == 0 || !bsx_read_code(&bits, s->table->code, s->table->limit - 1, &value)) return false;
    bsx_store_value(l->out, s->table, s->map, (uint32_t)value);
    l->out += s->table->bytes;
    l->used = bits.used;
    l->left--;
    return true;
}

/* Decode up to `lanes` streams for a while. Returns the one that needs read_one. */
static unsigned run_lanes(lane *l, unsigned lanes, const source *s) {
    for (;;) {
        const unsigned together = lanes == BSX_LANES ? BSX_LANES : 1;
        uint64_t rounds = UINT64_MAX;
        unsigned least = 0, at;
        for (unsigned i = 0; i < together; i++) {
            const uint64_t sure = sure_batches(&l[i], s);
            if (sure < rounds) least = i;
            if (sure < rounds) rounds = sure;
        }
        if (rounds == 0) return least;
        at = read_lanes(l, together, rounds, s);
        if (at < together) return at;
    }
}

void bsx_read_direct(bsx_stream *streams, unsigned count, const bsx_table *table, const uint32_t *map) {
    const unsigned batch = BSX_WINDOW_BITS / table->longest;
    const source s = {table, map, batch > 4 ? 4 : batch};
    lane l[BSX_LANES];
    unsigned lanes = 0, begun = 0;
    for (;;) { /* a stream that is done makes room for the next one */
        for (; lanes < BSX_LANES && begun < count; begun++) {
            bsx_stream *next = &streams[begun];
            l[lanes++] = (lane){next->data, next->elements, 0, next->size, next->count, next};
        }
        if (lanes == 0) return;
        const unsigned one = run_lanes(l, lanes, &s);
        if (l[one].left > 0 && read_one(&l[one], &s)) continue;
        const bsx_bits bits = {l[one].data, l[one].size, l[one].used};
        l[one].stream->ok = l[one].left == 0 && bsx_at_end(&bits);
        l[one] = l[--lanes];
    }
}
