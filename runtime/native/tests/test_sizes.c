/* test_sizes.c - tensors and claims of more bytes than a size_t of 32 bits counts. Where it has 64, the same must hold. */
#include <stdlib.h>
#include <string.h>

#include "blob_writer.h"
#include "bsx.h"
#include "check.h"

enum { HEAD = 64, COLS = 65536, ROWS = 65537, ENTRY = 10, SYMBOLS = 2 };

static uint8_t *put(uint8_t *p, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) *p++ = (uint8_t)(value >> 8 * i);
    return p;
}

/* An RL blob of 2^32 + 65536 weights, a row a block, all of them 0 but the last one, which is +1. */
static uint8_t *write_large(size_t *size) {
    const size_t head_bytes = (HEAD + 1 + (size_t)ROWS * ENTRY + 63) / 64 * 64;
    uint8_t last[8];
    const size_t runs = pack_bits("0000000000000000 1 0000000000000000", last); /* 65535 in exp-Golomb of order 0 */
    const size_t levels = pack_bits("1", last + runs);
    const size_t payload = runs + levels;
    *size = head_bytes + payload;
    uint8_t *blob = calloc(*size, 1);
    if (blob == NULL) abort();
    memcpy(blob, "BSXB\0\0\2\1\2", 9);
    put(blob + 12, 0x3F000000, 4); /* step 0.5 */
    put(blob + 16, SYMBOLS, 4);
    put(blob + 20, 1, 4);
    put(blob + 24, COLS, 4);
    put(blob + 28, 1, 4);
    put(blob + 32, payload, 8);
    put(blob + 44, 2, 1);
    put(put(blob + 48, ROWS, 8), COLS, 8);
    pack_bits("1 010", blob + HEAD); /* levels 0 and +1 */
    uint8_t *entry = blob + HEAD + 1 + (size_t)(ROWS - 1) * ENTRY;
    put(put(put(put(entry, runs, 2), levels, 2), 1, 2), slow_crc32c(last, payload), 4);
    memcpy(blob + head_bytes, last, payload);
    seal_head(blob, head_bytes);
    return blob;
}

/* More weights than a size_t counts bytes: blocks decode each at its place, and no size that fits is taken for the whole. */
static void test_decode_large(void) {
    size_t size;
    uint8_t *blob = write_large(&size);
    bsx_head head;
    CHECK(bsx_parse(blob, size, &head) == BSX_OK);
    CHECK(head.weights == (UINT64_C(1) << 32) + COLS && head.blocks == ROWS);
    const size_t workspace_bytes = (size_t)head.workspace_bytes, scratch_bytes = (size_t)head.scratch_bytes;
    void *workspace = malloc(workspace_bytes), *scratch = malloc(scratch_bytes);
    int8_t *out = malloc(2 * COLS);
    uint64_t bad = 0;
    CHECK(bsx_prepare(blob, size, &head, BSX_INT8, workspace, workspace_bytes) == BSX_OK);
#define DECODE(first, count, bytes)                                                                                    \
    bsx_decode(blob, size, &head, workspace, workspace_bytes, first, count, 0, out, bytes, scratch, scratch_bytes, &bad)
    memset(out, 9, 2 * COLS);
    CHECK(DECODE(ROWS - 2, 2, 2 * COLS) == BSX_OK);
    for (size_t i = 0; i < 2 * COLS; i++) CHECK(out[i] == (i == 2 * COLS - 1));
    CHECK(DECODE(0, ROWS, COLS) == BSX_BAD_ARGUMENT); /* what is left of the whole in 32 bits */
    CHECK(DECODE(0, ROWS - 1, 0) == BSX_BAD_ARGUMENT);
    CHECK(DECODE(1, UINT64_MAX, 0) == BSX_BAD_ARGUMENT);
    CHECK(DECODE(UINT64_C(1) << 32, 1, COLS) == BSX_BAD_ARGUMENT);
#undef DECODE
    free(out);
    free(scratch);
    free(workspace);
    free(blob);
}

/* A plan of 2^32 + 4 weights is not taken for one of 4. */
static void test_encode_large(void) {
    const int32_t levels[4] = {0, 1, 0, 0}, codebook[SYMBOLS] = {0, 1};
    const size_t lookup_bytes = bsx_lookup_bytes(SYMBOLS);
    void *lookup = malloc(lookup_bytes);
    CHECK(bsx_lookup_prepare(codebook, SYMBOLS, NULL, lookup, lookup_bytes) == BSX_OK);
    bsx_plan plan = {.rows = (UINT64_C(1) << 30) + 1, .cols = 4, .symbols = SYMBOLS, .block_rows = 1, .block_cols = 4,
                     .layout = BSX_EG};
    uint8_t out[64];
    uint32_t counts[1];
    bsx_progress progress;
    CHECK(bsx_block_bound(&plan) > 0 && bsx_block_bound(&plan) <= sizeof out);
    CHECK(bsx_encode(&plan, levels, 4, lookup, lookup_bytes, 0, 1, out, sizeof out, counts, 1, &progress) ==
          BSX_BAD_ARGUMENT);
    plan.rows = 1;
    CHECK(bsx_encode(&plan, levels, 4, lookup, lookup_bytes, 0, 1, out, sizeof out, counts, 1, &progress) == BSX_OK);
    CHECK(bsx_encode(&plan, levels, 4, lookup, lookup_bytes, UINT64_C(1) << 32, 1, out, sizeof out, counts, 1,
                     &progress) == BSX_BAD_ARGUMENT);
    CHECK(bsx_encode(&plan, levels, 4, lookup, lookup_bytes, 0, UINT64_C(1) << 32 | 1, out, sizeof out, counts, 1,
                     &progress) == BSX_BAD_ARGUMENT);
    free(lookup);
}

/* The head of a RAW blob of 2^40 float64 weights, as long as a head's first part: refused before anything is added up. */
static void test_claims(void) {
    uint8_t blob[HEAD] = {0};
    bsx_head head;
    memcpy(blob, "BSXB\0\0\0\13\2", 9);
    put(blob + 20, 1, 4);
    put(blob + 24, COLS, 4);
    put(blob + 32, UINT64_C(1) << 43, 8);
    put(blob + 44, 2, 1);
    put(put(blob + 48, UINT64_C(1) << 24, 8), COLS, 8);
    CHECK(bsx_parse(blob, sizeof blob, &head) == BSX_TRUNCATED);
    put(blob + 56, 2 * COLS, 8);
    CHECK(bsx_parse(blob, sizeof blob, &head) == BSX_BAD_SHAPE);
}

void test_sizes(void) {
    test_decode_large();
    test_encode_large();
    test_claims();
}
