/* test_encode.c - payloads byte for byte, and random tensors there and back. */
#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "blob.h"
#include "blob_writer.h"
#include "bsx.h"
#include "check.h"

/* Encode a whole tensor into memory of exactly the bound of one block, over and over; returns the payload's size. */
static size_t encode_all(const bsx_plan *plan, const int32_t *levels, const int32_t *codebook, const uint8_t *classes,
                         uint8_t *payload, uint32_t *counts, uint64_t blocks) {
    const size_t lookup_bytes = bsx_lookup_bytes(plan->symbols);
    const size_t bound = bsx_block_bound(plan);
    const unsigned numbers = bsx_counts(plan->layout);
    void *lookup = malloc(lookup_bytes);
    uint8_t *out = malloc(bound);
    CHECK(bsx_lookup_prepare(codebook, plan->symbols, classes, lookup, lookup_bytes) == BSX_OK);
    size_t size = 0;
    for (uint64_t done = 0; done < blocks;) {
        bsx_progress progress;
        const bsx_status status =
            bsx_encode(plan, levels, plan->rows * plan->cols, lookup, lookup_bytes, done, blocks - done, out, bound,
                       counts + done * numbers, (blocks - done) * numbers, &progress);
        CHECK(status == BSX_OK && progress.blocks > 0);
        if (status != BSX_OK) break;
        memcpy(payload + size, out, progress.bytes);
        size += progress.bytes;
        done += progress.blocks;
    }
    free(lookup);
    free(out);
    return size;
}

static void test_literal(void) {
    const int32_t codebook[4] = {0, 1, -1, 2};
    const int32_t levels[8] = {0, 1, -1, 2, 0, 0, 2, 0};
    uint8_t payload[64], expected[64];
    uint32_t counts[6];
    bsx_plan plan = {.rows = 2, .cols = 4, .symbols = 4, .block_rows = 1, .block_cols = 4, .layout = BSX_EG};
    plan.level_code = 1;
    CHECK(encode_all(&plan, levels, codebook, NULL, payload, counts, 2) == 4);
    CHECK(counts[0] == 2 && counts[1] == 2);
    pack_bits("10 11 0100 0101 0000 10 10 0101 10", expected);
    CHECK(memcmp(payload, expected, 4) == 0);
    plan.layout = BSX_RL;
    plan.run_code = 0;
    /* runs 1 0 0, levels 0 1 2; then run 2, level 2 */
    CHECK(encode_all(&plan, levels, codebook, NULL, payload, counts, 2) == 4);
    const uint32_t expected_counts[6] = {1, 1, 3, 1, 1, 1};
    CHECK(memcmp(counts, expected_counts, sizeof counts) == 0);
    pack_bits("010 1 1 000 10 11 0100 011 00000 0100", expected);
    CHECK(memcmp(payload, expected, 4) == 0);
    plan.level_code = 16; /* Golomb-Rice of order 0 */
    plan.layout = BSX_BM;
    CHECK(encode_all(&plan, levels, codebook, NULL, payload, counts, 2) == 4);
    CHECK(counts[0] == 1 && counts[1] == 1);
    pack_bits("00001110 1 01 001 00 00000100 001", expected); /* places 1 2 3 of the bitmap, then 2 */
    CHECK(memcmp(payload, expected, 4) == 0);
    /* Classes 0 1 1: the pairs by rank are 11 12 13 21 31 22 23 32 33; pairs 1 2 and 3 1: ranks 1 and 4; 3 1: 4. */
    const uint8_t classes[3] = {0, 1, 1};
    plan.pairs = 1;
    plan.level_code = 1;
    CHECK(encode_all(&plan, levels, codebook, classes, payload, counts, 2) == 4);
    pack_bits("00001110 11 0110 00 00000100 0110", expected);
    CHECK(memcmp(payload, expected, 4) == 0);
}

/* The largest symbol in the smallest code: 33 bits. */
static void test_longest_codeword(void) {
    int32_t *codebook = malloc(65536 * sizeof *codebook);
    for (int32_t i = 0; i < 65536; i++) codebook[i] = i;
    const int32_t levels[2] = {65535, 65535};
    const bsx_plan plan = {.rows = 2, .cols = 1, .symbols = 65536, .block_rows = 2, .block_cols = 1, .layout = BSX_EG};
    uint8_t payload[64], expected[64];
    uint32_t counts[1];
    CHECK(encode_all(&plan, levels, codebook, NULL, payload, counts, 1) == 9);
    pack_bits("0000000000000000 10000000000000000 0000000000000000 10000000000000000", expected);
    CHECK(memcmp(payload, expected, 9) == 0);
    free(codebook);
}

static void test_refusals(void) {
    const int32_t codebook[3] = {0, 1, -1};
    const int32_t twice[3] = {0, 1, 1};
    const int32_t wide[1] = {BSX_MAX_LEVEL + 1};
    const int32_t levels[4] = {0, 1, 7, 0};
    uint8_t lookup[16384], out[64];
    uint32_t counts[1];
    bsx_progress progress;
    CHECK(bsx_lookup_bytes(0) == 0 && bsx_lookup_bytes(65537) == 0);
    CHECK(bsx_lookup_prepare(twice, 3, NULL, lookup, sizeof lookup) == BSX_BAD_CODEBOOK);
    CHECK(bsx_lookup_prepare(wide, 1, NULL, lookup, sizeof lookup) == BSX_BAD_CODEBOOK);
    CHECK(bsx_lookup_prepare(codebook, 3, NULL, lookup, bsx_lookup_bytes(3) - 1) == BSX_BAD_ARGUMENT);
    CHECK(bsx_lookup_prepare(codebook, 3, NULL, lookup, sizeof lookup) == BSX_OK);
    bsx_plan plan = {.rows = 1, .cols = 4, .symbols = 3, .block_rows = 1, .block_cols = 4, .layout = BSX_EG};
    for (plan.layout = BSX_EG; plan.layout <= BSX_BM; plan.layout++) {
        uint32_t three[3];
        CHECK(bsx_encode(&plan, levels, 4, lookup, sizeof lookup, 0, 1, out, sizeof out, three, 3, &progress) ==
              BSX_BAD_CODEBOOK);
        CHECK(progress.bad_level == 2);
    }
    plan.layout = BSX_EG;
    CHECK(bsx_encode(&plan, levels, 3, lookup, sizeof lookup, 0, 1, out, sizeof out, counts, 1, &progress) ==
          BSX_BAD_ARGUMENT);
    CHECK(bsx_encode(&plan, levels, 4, lookup, sizeof lookup, 0, 2, out, sizeof out, counts, 1, &progress) ==
          BSX_BAD_ARGUMENT);
    CHECK(bsx_encode(&plan, levels, 4, lookup, sizeof lookup, 0, 1, out, bsx_block_bound(&plan) - 1, counts, 1,
                     &progress) == BSX_BAD_ARGUMENT);
    plan.symbols = 2;
    CHECK(bsx_encode(&plan, levels, 4, lookup, sizeof lookup, 0, 1, out, sizeof out, counts, 1, &progress) ==
          BSX_BAD_ARGUMENT);
    plan.block_cols = 5;
    CHECK(bsx_block_bound(&plan) == 0);
}

static uint32_t random_state = 7;

static uint32_t next_random(uint32_t below) {
    random_state = random_state * 1664525U + 1013904223U;
    return (uint32_t)((uint64_t)random_state * below >> 32);
}

/* Encode random levels and decode the streams again, each with the stream decoder that its own test holds. */
static void test_random(void) {
    static bsx_table table;
    static uint16_t values[4096 + BSX_STREAM_SLOP];
    for (int round = 0; round < 300; round++) {
        bsx_plan plan = {.rows = 1, .cols = 1 + next_random(4096), .block_rows = 1, .layout = BSX_EG};
        plan.block_cols = (uint32_t)plan.cols;
        plan.symbols = 1 + next_random(next_random(2) ? 2000 : 4);
        plan.level_code = (uint8_t)next_random(32);
        int32_t *codebook = malloc(plan.symbols * sizeof *codebook);
        int32_t *levels = malloc(plan.cols * sizeof *levels);
        uint32_t *symbols = malloc(plan.cols * sizeof *symbols);
        for (uint32_t i = 0; i < plan.symbols; i++) codebook[i] = (int32_t)(i * 8191) - 8000000;
        for (uint32_t i = 0; i < plan.cols; i++) {
            symbols[i] = next_random(3) ? 0 : next_random(plan.symbols);
            levels[i] = codebook[symbols[i]];
        }
        uint8_t *payload = malloc(bsx_block_bound(&plan));
        uint32_t counts[1];
        const size_t size = encode_all(&plan, levels, codebook, NULL, payload, counts, 1);
        CHECK(size == counts[0]);
        bsx_build_table(&table, bsx_code_of(plan.level_code), plan.symbols, 0, 2, NULL);
        bsx_stream stream = {payload, counts[0], plan.block_cols, values, false};
        bsx_read_streams(&stream, 1, &table, NULL);
        CHECK(stream.ok);
        for (uint32_t i = 0; i < plan.cols; i++) CHECK(values[i] == symbols[i]);
        free(payload);
        free(symbols);
        free(levels);
        free(codebook);
    }
}

void test_encode(void) {
    test_literal();
    test_longest_codeword();
    test_refusals();
    test_random();
}
