/* direct.c - decode whole bitstreams from the zero bits that each codeword starts with, several side by side: for codes
 * whose codewords are too long for a table to hold several of them. */
#include "blob.h"
#include "inline.h"

typedef struct lane {
    const uint8_t *data;
    uint64_t size, used; /* bytes; bits */
    uint8_t *out;
    uint32_t left; /* codewords */
    bsx_stream *stream;
} lane;

/* What the loop over codewords is compiled for. */
typedef struct shape {
    unsigned family, width, per_value;
    bool mapped;
} shape;

typedef struct source {
    const bsx_table *table;
    const uint8_t *map;
    unsigned batch; /* codewords that 57 bits surely hold */
} source;

ALWAYS_INLINE void store(uint8_t *out, uint64_t value, const shape k, const source *s) {
    const unsigned bytes = k.width * k.per_value;
    const uint16_t plain = (uint16_t)(value + s->table->base);
    if (k.mapped) {
        memcpy(out, s->map + (size_t)value * bytes, bytes);
    } else {
        memcpy(out, &plain, sizeof plain);
    }
}

/* Decode the next batch. Reads 8 bytes. False: there is no codeword, or one whose value is not below the limit. */
ALWAYS_INLINE bool read_batch(lane *l, const shape k, const source *s) {
    const bsx_code code = {k.family, s->table->code.order};
    uint64_t window = bsx_load_be64(l->data + (l->used >> 3)) << (l->used & 7);
    uint8_t *out = l->out;
    uint64_t used = l->used;
    for (unsigned i = 0; i < s->batch; i++) {
        const unsigned length = bsx_code_length(window | 1, code);
        if (UNLIKELY(length > s->table->longest)) return false;
        const uint64_t value = bsx_code_value(window, length, code);
        if (UNLIKELY(value >= s->table->limit)) return false;
        store(out, value, k, s);
        out += k.width * k.per_value;
        used += length;
        window <<= length;
    }
    l->out = out;
    l->used = used;
    l->left -= s->batch;
    return true;
}

ALWAYS_INLINE bool has_room(const lane *l, unsigned batch) { return l->left >= batch && l->size - (l->used >> 3) >= 8; }

/* Decode the rest of a stream, codeword by codeword. */
static bool finish(lane *l, const source *s) {
    bsx_bits bits = {l->data, (size_t)l->size, l->used};
    for (; l->left > 0; l->left--) {
        uint64_t value;
        if (s->table->limit == 0 || !bsx_read_code(&bits, s->table->code, s->table->limit - 1, &value)) return false;
        l->out += bsx_store_value(l->out, s->table, s->map, (uint32_t)value);
    }
    return bsx_at_end(&bits);
}

/* Decode `lanes` streams in turns, as far as all of them have room. */
ALWAYS_INLINE void read_side_by_side(lane *l, const unsigned lanes, const shape k, const source *s) {
    lane l0 = l[0], l1 = l[lanes > 1 ? 1 : 0], l2 = l[lanes > 1 ? 2 : 0], l3 = l[lanes > 1 ? 3 : 0];
    bool good = true;
    while (good && has_room(&l0, s->batch) &&
           (lanes == 1 || (has_room(&l1, s->batch) && has_room(&l2, s->batch) && has_room(&l3, s->batch)))) {
        good = read_batch(&l0, k, s) &&
               (lanes == 1 || (read_batch(&l1, k, s) && read_batch(&l2, k, s) && read_batch(&l3, k, s)));
    }
    l[0] = l0;
    if (lanes == 1) return;
    l[1] = l1;
    l[2] = l2;
    l[3] = l3;
}

ALWAYS_INLINE void read_in_family(lane *l, unsigned lanes, const shape k, const source *s) {
    if (lanes == BSX_LANES) read_side_by_side(l, BSX_LANES, k, s);
    else read_side_by_side(l, 1, k, s);
}

ALWAYS_INLINE void read_in_shape(lane *l, unsigned lanes, shape k, const source *s) {
    if (s->table->code.family == BSX_EXP_GOLOMB) {
        k.family = BSX_EXP_GOLOMB;
        read_in_family(l, lanes, k, s);
    } else {
        k.family = BSX_GOLOMB_RICE;
        read_in_family(l, lanes, k, s);
    }
}

/* Decode what can be decoded side by side; with fewer than four lanes, the first of them alone. */
static void run_lanes(lane *l, unsigned lanes, const source *s) {
    static const shape symbols = {0, 2, 1, false}, levels = {0, 1, 1, true};
    static const shape level_pairs = {0, 1, 2, true}, symbol_pairs = {0, 2, 2, true};
    const bsx_table *table = s->table;
    if (!table->mapped) read_in_shape(l, lanes, symbols, s);
    else if (table->per_value == 1) read_in_shape(l, lanes, levels, s);
    else if (table->width == 1) read_in_shape(l, lanes, level_pairs, s);
    else read_in_shape(l, lanes, symbol_pairs, s);
}

void bsx_read_direct(bsx_stream *streams, unsigned count, const bsx_table *table, const void *map) {
    const unsigned batch = BSX_WINDOW_BITS / table->longest;
    const source s = {table, map, batch > 8 ? 8 : batch};
    lane l[BSX_LANES];
    unsigned lanes = 0, begun = 0;
    for (;;) { /* a stream that is done makes room for the next one */
        for (; lanes < BSX_LANES && begun < count; begun++) {
            bsx_stream *next = &streams[begun];
            l[lanes++] = (lane){next->data, next->size, 0, next->elements, next->count, next};
        }
        if (lanes == 0) return;
        run_lanes(l, lanes, &s);
        unsigned done = 0;
        for (unsigned i = 1; lanes == BSX_LANES && i < lanes; i++) {
            if (!has_room(&l[i], s.batch)) done = i;
        }
        l[done].stream->ok = finish(&l[done], &s);
        l[done] = l[--lanes];
    }
}
