/* encode.c - from levels to blocks (sections 3, 5 and 6). */
#include <string.h>

#include "bits.h"
#include "blob.h"

#define EMPTY INT32_MIN      /* beyond +-2^24: never a level */
#define CHUNK 1024U          /* weights searched for coded ones at a time */
#define STORE_SLOP 8U        /* the writer stores whole words */

/* ---- the table from level to symbol: open addressing, at most half full ---- */

typedef struct slot {
    int32_t level;
    uint32_t symbol;
} slot;

typedef struct lookup_table {
    uint32_t symbols;
    int32_t zero; /* the level of symbol 0 */
    slot slots[];
} lookup_table;

static unsigned lookup_log2(size_t symbols) {
    unsigned log2 = 1;
    while ((size_t)1 << log2 < 2 * symbols) log2++;
    return log2;
}

size_t bsx_lookup_bytes(size_t symbols) {
    if (symbols < 1 || symbols > BSX_MAX_SYMBOLS) return 0;
    return sizeof(lookup_table) + ((size_t)1 << lookup_log2(symbols)) * sizeof(slot) + BSX_ALIGNMENT;
}

/* The place of a level, or the empty place where it belongs. */
static size_t find(const slot *slots, unsigned log2, int32_t level) {
    const size_t mask = ((size_t)1 << log2) - 1;
    size_t at = (uint32_t)level * UINT32_C(0x9E3779B1) >> (32 - log2);
    while (slots[at].level != level && slots[at].level != EMPTY) at = (at + 1) & mask;
    return at;
}

bsx_status bsx_lookup_prepare(const int32_t *codebook, size_t symbols, void *lookup, size_t lookup_bytes) {
    const size_t needed = bsx_lookup_bytes(symbols);
    if (codebook == NULL || lookup == NULL || needed == 0 || lookup_bytes < needed) return BSX_BAD_ARGUMENT;
    const unsigned log2 = lookup_log2(symbols);
    lookup_table *table = bsx_align(lookup);
    slot *slots = table->slots;
    table->symbols = (uint32_t)symbols;
    table->zero = codebook[0];
    for (size_t i = 0; i < (size_t)1 << log2; i++) slots[i] = (slot){EMPTY, 0};
    for (size_t i = 0; i < symbols; i++) {
        if (codebook[i] < -BSX_MAX_LEVEL || codebook[i] > BSX_MAX_LEVEL) return BSX_BAD_CODEBOOK;
        const size_t at = find(slots, log2, codebook[i]);
        if (slots[at].level != EMPTY) return BSX_BAD_CODEBOOK;
        slots[at] = (slot){codebook[i], (uint32_t)i};
    }
    return BSX_OK;
}

/* ---- writing bits ---- */

/* pending's top `held` bits, fewer than 8, are not yet in out. */
typedef struct writer {
    uint8_t *out;
    uint64_t pending;
    unsigned held;
} writer;

static inline void store_be64(uint8_t *p, uint64_t x) {
    for (unsigned i = 0; i < 8; i++) p[i] = (uint8_t)(x >> (56 - 8 * i));
}

/* Append the codeword of value (at most 33 bits). Stores 8 bytes. */
static inline void write_eg(writer *w, uint32_t value, unsigned order) {
    const uint64_t word = (uint64_t)value + (UINT64_C(1) << order);
    const unsigned length = 2 * (63 - bsx_clz64(word)) - order + 1;
    w->pending |= word << (64 - w->held - length);
    w->held += length;
    store_be64(w->out, w->pending);
    w->out += w->held >> 3;
    w->pending <<= w->held & ~7U;
    w->held &= 7;
}

/* The end of the stream; the bits of its last byte are in out already, since each codeword stores a whole word. */
static uint8_t *finish(const writer *w) { return w->out + (w->held != 0); }

/* ---- blocks ---- */

typedef struct encoder {
    const bsx_plan *plan;
    const slot *slots;
    unsigned log2;
    int32_t zero;
    size_t run_bound; /* bytes that the run stream of a block can take */
} encoder;

/* Bytes of `count` codewords below `limit`, and what the writer stores past them. */
static size_t stream_bound(uint64_t count, uint32_t limit, unsigned order) {
    return (size_t)((count * bsx_eg_bits(limit - 1, order) + 7) / 8) + STORE_SLOP;
}

static size_t run_bound(const bsx_plan *plan) {
    const uint32_t weights = plan->block_rows * plan->block_cols;
    return plan->layout == BSX_RL ? stream_bound(weights, weights, plan->run_code) : 0;
}

static bool plan_valid(const bsx_plan *plan) {
    if (plan == NULL || (plan->layout != BSX_EG && plan->layout != BSX_RL)) return false;
    if (plan->symbols < 1 || plan->symbols > BSX_MAX_SYMBOLS) return false;
    if (plan->level_code > BSX_MAX_ORDER || plan->run_code > (plan->layout == BSX_RL ? BSX_MAX_ORDER : 0)) return false;
    if (plan->rows < 1 || plan->cols < 1 || plan->rows > BSX_MAX_WEIGHTS / plan->cols) return false;
    const bsx_grid grid = {plan->rows, plan->cols, plan->block_rows, plan->block_cols};
    return bsx_grid_valid(&grid);
}

size_t bsx_block_bound(const bsx_plan *plan) {
    if (!plan_valid(plan)) return 0;
    const uint32_t weights = plan->block_rows * plan->block_cols;
    return run_bound(plan) + stream_bound(weights, plan->symbols, plan->level_code);
}

/* Both return the first weight whose level is not in the codebook, or the number of weights; *end is past the bytes. */

static uint32_t encode_eg(const encoder *e, const int32_t *levels, uint32_t weights, uint8_t *out, uint32_t *counts,
                          uint8_t **end) {
    writer w = {out, 0, 0};
    for (uint32_t i = 0; i < weights; i++) {
        const slot *s = &e->slots[find(e->slots, e->log2, levels[i])];
        if (s->level == EMPTY) return i;
        write_eg(&w, s->symbol, e->plan->level_code);
    }
    *end = finish(&w);
    counts[0] = (uint32_t)(*end - out);
    return weights;
}

static uint32_t encode_rl(const encoder *e, const int32_t *levels, uint32_t weights, uint8_t *out, uint32_t *counts,
                          uint8_t **end) {
    uint8_t *const level_stream = out + e->run_bound; /* moved down when the run stream's length is known */
    writer runs = {out, 0, 0};
    writer symbols = {level_stream, 0, 0};
    uint32_t coded = 0;
    uint32_t expected = 0; /* where the next coded weight would be after a run of 0 */
    for (uint32_t start = 0; start < weights; start += CHUNK) {
        uint16_t places[CHUNK];
        const uint32_t length = weights - start < CHUNK ? weights - start : CHUNK;
        uint32_t found = 0; /* searched without branches: which weights are zero cannot be predicted */
        for (uint32_t i = 0; i < length; i++) {
            places[found] = (uint16_t)i;
            found += levels[start + i] != e->zero;
        }
        for (uint32_t i = 0; i < found; i++) {
            const uint32_t place = start + places[i];
            const slot *s = &e->slots[find(e->slots, e->log2, levels[place])];
            if (s->level == EMPTY) return place;
            write_eg(&runs, place - expected, e->plan->run_code);
            write_eg(&symbols, s->symbol - 1, e->plan->level_code);
            expected = place + 1;
        }
        coded += found;
    }
    counts[0] = (uint32_t)(finish(&runs) - out);
    counts[1] = (uint32_t)(finish(&symbols) - level_stream);
    counts[2] = coded;
    memmove(out + counts[0], level_stream, counts[1]);
    *end = out + counts[0] + counts[1];
    return weights;
}

bsx_status bsx_encode(const bsx_plan *plan, const int32_t *levels, size_t level_count, const void *lookup,
                      size_t lookup_bytes, uint64_t first_block, uint64_t count, void *out, size_t out_bytes,
                      uint32_t *counts, size_t counts_count, bsx_progress *progress) {
    if (!plan_valid(plan) || levels == NULL || lookup == NULL || out == NULL || counts == NULL || progress == NULL ||
        level_count != plan->rows * plan->cols || lookup_bytes < bsx_lookup_bytes(plan->symbols)) {
        return BSX_BAD_ARGUMENT;
    }
    const bsx_grid grid = {plan->rows, plan->cols, plan->block_rows, plan->block_cols};
    const uint64_t blocks = bsx_grid_blocks(&grid);
    const unsigned numbers = plan->layout == BSX_RL ? 3 : 1;
    const size_t bound = bsx_block_bound(plan);
    if (count > blocks || first_block > blocks - count || counts_count / numbers < count ||
        (count != 0 && out_bytes < bound)) {
        return BSX_BAD_ARGUMENT;
    }
    const lookup_table *table = bsx_align(lookup);
    if (table->symbols != plan->symbols) return BSX_BAD_ARGUMENT;
    const encoder e = {plan, table->slots, lookup_log2(plan->symbols), table->zero, run_bound(plan)};
    *progress = (bsx_progress){0, 0, 0};
    uint8_t *start = out;
    while (progress->blocks < count && out_bytes - progress->bytes >= bound) {
        const uint64_t block = first_block + progress->blocks;
        const uint64_t place = bsx_grid_first(&grid, block);
        const uint32_t weights = bsx_grid_weights(&grid, block);
        uint32_t *block_counts = counts + progress->blocks * numbers;
        uint8_t *end = start;
        const uint32_t good = plan->layout == BSX_RL
                                  ? encode_rl(&e, levels + place, weights, start, block_counts, &end)
                                  : encode_eg(&e, levels + place, weights, start, block_counts, &end);
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
