/* encode.c - from levels to blocks (sections 3, 5 and 6). */
#include <string.h>

#include "blob.h"
#include "inline.h"
#include "lookup.h"

#define CHUNK 1024U     /* weights searched for coded ones at a time; a multiple of 8, the weights of a bitmap's byte */
#define MOST_AT_ONCE 56U /* bits that are appended at once: with up to 7 that wait they do not fill a word */
#define STORE_SLOP 8U   /* the writer stores whole words */

/* ---- writing bits ---- */

/* pending's top `held` bits, fewer than 8, are not yet in out. */
typedef struct writer {
    uint8_t *out;
    uint64_t pending;
    unsigned held;
} writer;

ALWAYS_INLINE void store_be64(uint8_t *p, uint64_t x) {
    for (unsigned i = 0; i < 8; i++) p[i] = (uint8_t)(x >> (56 - 8 * i));
}

typedef struct codeword {
    uint64_t bits;
    unsigned length;
} codeword;

/* At most 47 bits. */
ALWAYS_INLINE codeword codeword_of(uint32_t value, const bsx_code code) {
    const uint64_t one = UINT64_C(1) << code.order; /* the bit after the zeros, before the order's bits */
    const uint32_t q = value >> code.order;
    const uint64_t biased = value + one;
    if (code.family == BSX_EXP_GOLOMB) return (codeword){biased, 2 * (63 - bsx_clz64(biased)) - code.order + 1};
    if (!UNLIKELY(q >= BSX_RICE_ESCAPE)) return (codeword){one | (value & (one - 1)), code.order + 1 + q};
    const uint64_t word = biased - ((uint64_t)BSX_RICE_ESCAPE << code.order);
    return (codeword){word, BSX_RICE_ESCAPE + 2 * (63 - bsx_clz64(word)) - code.order + 1};
}

/* At most 64 bits together. */
ALWAYS_INLINE codeword join(codeword a, codeword b) { return (codeword){a.bits << b.length | b.bits, a.length + b.length}; }

/* Append at most 56 bits. Stores 8 bytes. */
ALWAYS_INLINE void append(writer *w, codeword c) {
    w->pending |= c.bits << (64 - w->held - c.length);
    w->held += c.length;
    store_be64(w->out, w->pending);
    w->out += w->held >> 3;
    w->pending <<= w->held & ~7U;
    w->held &= 7;
}

/* Append the codewords of values, four at a time if they are short: what takes its time is to append. */
ALWAYS_INLINE void write_family(writer *to, const uint32_t *values, size_t count, const bsx_code code) {
    writer w = *to;
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const codeword a = codeword_of(values[i], code), b = codeword_of(values[i + 1], code);
        const codeword c = codeword_of(values[i + 2], code), d = codeword_of(values[i + 3], code);
        if (!UNLIKELY(a.length + b.length + c.length + d.length > MOST_AT_ONCE)) {
            append(&w, join(join(a, b), join(c, d)));
        } else if (a.length + b.length <= MOST_AT_ONCE && c.length + d.length <= MOST_AT_ONCE) {
            append(&w, join(a, b));
            append(&w, join(c, d));
        } else {
            append(&w, a);
            append(&w, b);
            append(&w, c);
            append(&w, d);
        }
    }
    for (; i < count; i++) append(&w, codeword_of(values[i], code));
    *to = w;
}

static void write_values(writer *w, const uint32_t *values, size_t count, bsx_code code) {
    const bsx_code eg = {BSX_EXP_GOLOMB, code.order}, rice = {BSX_GOLOMB_RICE, code.order};
    if (code.family == BSX_EXP_GOLOMB) write_family(w, values, count, eg);
    else write_family(w, values, count, rice);
}

/* The end of the stream; the bits of its last byte are in out already, since each codeword stores a whole word. */
static uint8_t *finish(const writer *w) { return w->out + (w->held != 0); }

/* ---- blocks ---- */

typedef struct encoder {
    const bsx_plan *plan;
    const bsx_lookup *lookup;
    bsx_code level_code, run_code;
    size_t bitmap_bytes; /* BM: of a whole block, else 0 */
    size_t run_bound;    /* RL: bytes that the run stream of a block can take, else 0 */
} encoder;

/* Bytes of `count` codewords below `limit`, and what the writer stores past them. No codeword is longer than that of the
 * greatest value. */
static size_t stream_bound(uint64_t count, uint32_t limit, bsx_code code) {
    return (size_t)((count * bsx_longest(limit, code) + 7) / 8) + STORE_SLOP;
}

static bool plan_valid(const bsx_plan *plan) {
    if (plan == NULL || plan->layout < BSX_EG || plan->layout > BSX_BM || plan->pairs > (plan->layout != BSX_EG)) {
        return false;
    }
    if (plan->symbols < (plan->pairs ? BSX_MIN_PAIRED : 1)) return false;
    if (plan->symbols > (plan->pairs ? BSX_MAX_PAIRED : BSX_MAX_SYMBOLS)) return false;
    if (plan->level_code > BSX_MAX_CODE || plan->run_code > (plan->layout == BSX_RL ? BSX_MAX_CODE : 0)) return false;
    if (plan->rows < 1 || plan->cols < 1 || plan->rows > BSX_MAX_WEIGHTS / plan->cols) return false;
    const bsx_grid grid = {plan->rows, plan->cols, plan->block_rows, plan->block_cols};
    return bsx_grid_valid(&grid);
}

static encoder encoder_of(const bsx_plan *plan, const bsx_lookup *lookup) {
    const uint32_t weights = plan->block_rows * plan->block_cols;
    encoder e = {plan, lookup, bsx_code_of(plan->level_code), bsx_code_of(plan->run_code), 0, 0};
    if (plan->layout == BSX_BM) e.bitmap_bytes = (weights + 7) / 8;
    if (plan->layout == BSX_RL) e.run_bound = stream_bound(weights, weights, e.run_code);
    return e;
}

size_t bsx_block_bound(const bsx_plan *plan) {
    if (!plan_valid(plan)) return 0;
    const encoder e = encoder_of(plan, NULL);
    const uint32_t weights = plan->block_rows * plan->block_cols;
    const uint32_t limit = plan->pairs ? (plan->symbols - 1) * (plan->symbols - 1) : plan->symbols;
    const uint32_t codewords = plan->pairs ? weights / 2 + weights % 2 : weights;
    return e.bitmap_bytes + e.run_bound + stream_bound(codewords, limit, e.level_code);
}

/* A block on its way. */
typedef struct block_writer {
    writer runs, levels;
    uint32_t expected; /* RL: where the next coded weight would be after a run of 0 */
    uint32_t coded;
    uint32_t waiting; /* pairs: the symbol whose partner is still to come, or 0 */
} block_writer;

/* The levels that are not `zero`, and where they stand; searched without branches, since it cannot be predicted. */
static uint32_t find_coded(const int32_t *levels, uint32_t count, int32_t zero, uint16_t *places, int32_t *coded) {
    uint32_t found = 0;
    uint32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const uint32_t a = levels[i] != zero, b = a + (levels[i + 1] != zero), c = b + (levels[i + 2] != zero);
        places[found] = (uint16_t)i;
        places[found + a] = (uint16_t)(i + 1);
        places[found + b] = (uint16_t)(i + 2);
        places[found + c] = (uint16_t)(i + 3);
        found += c + (levels[i + 3] != zero);
    }
    for (; i < count; i++) {
        places[found] = (uint16_t)i;
        found += levels[i] != zero;
    }
    for (i = 0; i < found; i++) coded[i] = levels[places[i]];
    return found;
}

/* Section 6, BM: one bit a weight. */
static void write_bitmap(const int32_t *levels, uint32_t count, int32_t zero, uint8_t *bitmap) {
    uint32_t i = 0;
    for (; i + 8 <= count; i += 8) {
        unsigned bits = 0;
        for (unsigned j = 0; j < 8; j++) bits |= (unsigned)(levels[i + j] != zero) << j;
        bitmap[i / 8] = (uint8_t)bits;
    }
    if (i == count) return;
    bitmap[i / 8] = 0;
    for (unsigned j = 0; i + j < count; j++) bitmap[i / 8] |= (uint8_t)((unsigned)(levels[i + j] != zero) << j);
}

/* Append the level stream's share of some coded symbols, none of them 0; `symbols` is used up. */
static void write_symbols(const encoder *e, block_writer *b, uint32_t *symbols, uint32_t count) {
    if (!e->plan->pairs) {
        for (uint32_t i = 0; i < count; i++) symbols[i]--;
        write_values(&b->levels, symbols, count, e->level_code);
        return;
    }
    uint32_t i = 0, ranks = 0;
    if (b->waiting != 0 && count > 0) symbols[ranks++] = bsx_pair_rank(e->lookup, b->waiting, symbols[i++]);
    for (; i + 2 <= count; i += 2) symbols[ranks++] = bsx_pair_rank(e->lookup, symbols[i], symbols[i + 1]);
    if (count > 0) b->waiting = i < count ? symbols[i] : 0;
    write_values(&b->levels, symbols, ranks, e->level_code);
}

/* Append the runs before the coded weights of a chunk. */
static void write_runs(const encoder *e, block_writer *b, uint32_t start, const uint16_t *places, uint32_t count) {
    uint32_t runs[CHUNK];
    for (uint32_t i = 0; i < count; i++) {
        runs[i] = start + places[i] - b->expected;
        b->expected = start + places[i] + 1;
    }
    write_values(&b->runs, runs, count, e->run_code);
}

/* Encode a chunk of a block. Returns the first weight whose level is not in the codebook, or CHUNK. */
static uint32_t write_chunk(const encoder *e, const int32_t *chunk, uint32_t start, uint32_t length, block_writer *b,
                            uint8_t *bitmap) {
    const int32_t zero = e->lookup->zero;
    uint16_t places[CHUNK];
    int32_t coded[CHUNK];
    uint32_t symbols[CHUNK];
    if (e->plan->layout == BSX_EG) {
        const uint32_t good = bsx_symbols_of(e->lookup, chunk, length, symbols);
        write_values(&b->levels, symbols, good, e->level_code);
        return good < length ? good : CHUNK;
    }
    const uint32_t count = find_coded(chunk, length, zero, places, coded);
    if (e->plan->layout == BSX_BM) write_bitmap(chunk, length, zero, bitmap + start / 8);
    if (count == 0) return CHUNK;
    const uint32_t good = bsx_symbols_of(e->lookup, coded, count, symbols);
    if (good < count) return places[good];
    if (e->plan->layout == BSX_RL) write_runs(e, b, start, places, count);
    write_symbols(e, b, symbols, count);
    b->coded += count;
    return CHUNK;
}

/* Returns the first weight whose level is not in the codebook, or the number of weights. */
static uint32_t write_some(const encoder *e, const int32_t *levels, uint32_t weights, block_writer *b,
                           uint8_t *bitmap) {
    for (uint32_t start = 0; start < weights; start += CHUNK) {
        const uint32_t length = weights - start < CHUNK ? weights - start : CHUNK;
        const uint32_t good = write_chunk(e, levels + start, start, length, b, bitmap);
        if (good < CHUNK) return start + good;
    }
    return weights;
}

/* Encode one block to out; *end is past its bytes. */
static uint32_t encode_block(const encoder *e, const int32_t *levels, uint32_t weights, uint8_t *out, uint32_t *counts,
                             uint8_t **end) {
    const size_t bitmap_bytes = e->plan->layout == BSX_BM ? (weights + 7) / 8 : 0;
    uint8_t *const run_stream = out + bitmap_bytes;
    uint8_t *const level_stream = run_stream + e->run_bound; /* moved down when the run stream's length is known */
    block_writer b = {{run_stream, 0, 0}, {level_stream, 0, 0}, 0, 0, 0};
    const uint32_t good = write_some(e, levels, weights, &b, out);
    if (good < weights) return good;
    if (b.waiting != 0) {
        append(&b.levels, codeword_of(bsx_pair_rank(e->lookup, b.waiting, 1), e->level_code));
    }
    const uint32_t run_bytes = (uint32_t)(finish(&b.runs) - run_stream);
    const uint32_t level_bytes = (uint32_t)(finish(&b.levels) - level_stream);
    if (e->plan->layout == BSX_RL) {
        *counts++ = run_bytes;
        counts[1] = b.coded;
    }
    counts[0] = level_bytes;
    memmove(run_stream + run_bytes, level_stream, level_bytes);
    *end = run_stream + run_bytes + level_bytes;
    return weights;
}

static bool arguments_valid(const bsx_plan *plan, const int32_t *levels, size_t level_count, const bsx_lookup *lookup,
                            size_t lookup_bytes) {
    return plan_valid(plan) && levels != NULL && level_count == plan->rows * plan->cols && lookup != NULL &&
           lookup_bytes >= bsx_lookup_bytes(plan->symbols) && lookup->symbols == plan->symbols &&
           (lookup->paired || !plan->pairs);
}

bsx_status bsx_encode(const bsx_plan *plan, const int32_t *levels, size_t level_count, const void *lookup,
                      size_t lookup_bytes, uint64_t first_block, uint64_t count, void *out, size_t out_bytes,
                      uint32_t *counts, size_t counts_count, bsx_progress *progress) {
    const bsx_lookup *table = lookup ? bsx_align(lookup) : NULL;
    if (!arguments_valid(plan, levels, level_count, table, lookup_bytes) || out == NULL || counts == NULL ||
        progress == NULL) {
        return BSX_BAD_ARGUMENT;
    }
    const bsx_grid grid = {plan->rows, plan->cols, plan->block_rows, plan->block_cols};
    const uint64_t blocks = bsx_grid_blocks(&grid);
    const unsigned numbers = bsx_counts(plan->layout);
    const size_t bound = bsx_block_bound(plan);
    if (count > blocks || first_block > blocks - count || counts_count / numbers < count ||
        (count != 0 && out_bytes < bound)) {
        return BSX_BAD_ARGUMENT;
    }
    const encoder e = encoder_of(plan, table);
    *progress = (bsx_progress){0, 0, 0};
    uint8_t *start = out;
    while (progress->blocks < count && out_bytes - progress->bytes >= bound) {
        const uint64_t block = first_block + progress->blocks;
        const uint64_t place = bsx_grid_first(&grid, block);
        const uint32_t weights = bsx_grid_weights(&grid, block);
        uint8_t *end = start;
        const uint32_t good = encode_block(&e, levels + place, weights, start, counts + progress->blocks * numbers, &end);
        if (good < weights) {
            progress->bad_level = place + good;
            return BSX_BAD_CODEBOOK;
        }
        progress->bytes += (size_t)(end - start);
        progress->blocks++;
        start = end;
    }
    return BSX_OK;
}
