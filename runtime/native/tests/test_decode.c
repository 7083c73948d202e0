/* test_decode.c - blobs written out bit by bit, and what they decode to. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blob.h"
#include "blob_writer.h"
#include "check.h"
#include "kernels.h"

/* A blob with everything that decoding it needs, each in memory of exactly the right size. */
typedef struct opened {
    uint8_t *blob;
    size_t size;
    bsx_head head;
    void *workspace, *scratch;
} opened;

/* simd: which kernels to decode with. */
static opened open_blob(const blob_text *text, int type, unsigned simd) {
    opened o;
    o.blob = write_blob(text, &o.size);
    CHECK(bsx_parse(o.blob, o.size, &o.head) == BSX_OK);
    o.workspace = malloc(o.head.workspace_bytes);
    o.scratch = malloc(o.head.scratch_bytes);
    CHECK(bsx_prepare_with(o.blob, o.size, &o.head, type, simd, o.workspace, o.head.workspace_bytes) == BSX_OK);
    return o;
}

static void close_blob(opened *o) {
    free(o->blob);
    free(o->workspace);
    free(o->scratch);
}

static bsx_status decode(const opened *o, uint64_t first, uint64_t count, void *out, size_t out_bytes, uint64_t *bad) {
    return bsx_decode(o->blob, o->size, &o->head, o->workspace, o->head.workspace_bytes, first, count, 0, out,
                      out_bytes, o->scratch, o->head.scratch_bytes, bad);
}

/* All of a blob decodes to these bytes; so does each of its blocks alone, at an odd address. */
static void check_decodes_with(unsigned simd, const blob_text *text, int type, const void *expected, size_t bytes,
                               const char *name) {
    opened o = open_blob(text, type, simd);
    uint8_t *out = malloc(bytes + 1);
    CHECK_ROW(decode(&o, 0, o.head.blocks, out + 1, bytes, NULL) == BSX_OK, name);
    CHECK_ROW(memcmp(out + 1, expected, bytes) == 0, name);
    CHECK_ROW(decode(&o, 0, o.head.blocks, out, bytes - 1, NULL) == BSX_BAD_ARGUMENT, name);
    CHECK_ROW(decode(&o, 0, o.head.blocks, out, bytes + 1, NULL) == BSX_BAD_ARGUMENT, name);
    CHECK_ROW(decode(&o, 0, o.head.blocks + 1, out, bytes, NULL) == BSX_BAD_ARGUMENT, name);
    CHECK_ROW(decode(&o, o.head.blocks, 0, out, 0, NULL) == BSX_OK, name);
    const size_t per_block = bytes / o.head.weights * o.head.block_rows * o.head.block_cols;
    for (uint64_t i = 0; i + 1 < o.head.blocks; i++) { /* the blocks before the last are whole ones here */
        CHECK_ROW(decode(&o, i, 1, out, per_block, NULL) == BSX_OK, name);
        CHECK_ROW(memcmp(out, (const uint8_t *)expected + i * per_block, per_block) == 0, name);
    }
    free(out);
    close_blob(&o);
}

/* The same with every kind of kernels that this processor has. */
static void check_decodes(const blob_text *text, int type, const void *expected, size_t bytes, const char *name) {
    for (unsigned simd = 0; simd < bsx_simd_levels(); simd++) {
        check_decodes_with(simd, text, type, expected, bytes, name);
    }
}

/* Codebook 0, +1, -1, +2 by z = 0, 1, 2, 3: s = 0, 1, 1, 1. */
#define CODEBOOK "1 010 010 010"

static void test_eg(void) {
    blob_text text = {
        .layout = 1, .dtype = 1, .ndim = 2, .level_code = 1, .step = 0.5F, .symbols = 4, .block_rows = 1,
        .block_cols = 4, .index_width = 4, .dims = {5, 4}, .codebook = CODEBOOK,
        .blocks = {{NULL, "10 11 0100 0101", 0},
                   {NULL, "10 10 10 10", 0},
                   {NULL, "11 11 10 0101", 0},
                   {NULL, "0100 0101 0100 0101", 0},
                   {NULL, "10 10 10 11", 0}},
        .block_count = 5,
    };
    const float weights[20] = {0, .5F, -.5F, 1, 0, 0, 0, 0, .5F, .5F, 0, 1, -.5F, 1, -.5F, 1, 0, 0, 0, .5F};
    const int32_t levels[20] = {0, 1, -1, 2, 0, 0, 0, 0, 1, 1, 0, 2, -1, 2, -1, 2, 0, 0, 0, 1};
    const uint16_t half[20] = {0, 0x3800, 0xB800, 0x3C00, 0, 0, 0, 0, 0x3800, 0x3800,
                               0, 0x3C00, 0xB800, 0x3C00, 0xB800, 0x3C00, 0, 0, 0, 0x3800};
    double wide[20];
    uint16_t brain[20];
    for (int i = 0; i < 20; i++) {
        uint32_t bits;
        memcpy(&bits, &weights[i], 4);
        wide[i] = (double)weights[i];
        brain[i] = (uint16_t)(bits >> 16); /* exact: these have few bits */
    }
    check_decodes(&text, BSX_FLOAT32, weights, sizeof weights, "EG float32");
    check_decodes(&text, BSX_INT32, levels, sizeof levels, "EG levels");
    check_decodes(&text, BSX_BFLOAT16, brain, sizeof brain, "EG float32 to bfloat16");
    text.dtype = BSX_FLOAT16;
    check_decodes(&text, BSX_FLOAT16, half, sizeof half, "EG float16");
    text.dtype = BSX_BFLOAT16;
    check_decodes(&text, BSX_BFLOAT16, brain, sizeof brain, "EG bfloat16");
    text.dtype = BSX_FLOAT64;
    check_decodes(&text, BSX_FLOAT64, wide, sizeof wide, "EG float64");
}

/* The levels of test_rl, as a bitmap and a level stream in Golomb-Rice of order 0: bits from the lowest on, so that the
 * first byte's 0111 reads as places 0, 1 and 2. */
static void test_bm(void) {
    blob_text text = {
        .layout = 3, .dtype = 1, .ndim = 2, .level_code = 16, .step = 0.25F, .symbols = 3, .block_rows = 1,
        .block_cols = 12, .index_width = 2, .dims = {2, 12}, .codebook = "1 00110 010", /* s = 0, 5, 1: z = 0, 3, 4 */
        .blocks = {{"00001101 00001000", "1 01 1 01", 4}, {"00000000 00000000", "", 0}}, .block_count = 2,
    };
    const int8_t levels[24] = {2, 0, -2, 2, 0, 0, 0, 0, 0, 0, 0, -2};
    float weights[24];
    for (int i = 0; i < 24; i++) weights[i] = (float)levels[i] * 0.25F;
    check_decodes(&text, BSX_FLOAT32, weights, sizeof weights, "BM float32");
    check_decodes(&text, BSX_INT8, levels, sizeof levels, "BM int8");
    static const block_text wrong[] = {
        {"00001101 00011000", "1 01 1 01 1", 5}, /* a weight after the last one */
        {"00001101 00001000", "1 01 1 001", 4},  /* symbol 3 of 3 */
        {"00001101 00001000", "1 01 1", 4},      /* a level short */
        {"00000000 00000000", "1", 0},           /* a level of nothing */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        text.blocks[0] = wrong[i];
        opened o = open_blob(&text, BSX_INT8, 0);
        int8_t out[24];
        uint64_t bad = 99;
        CHECK(decode(&o, 0, 2, out, sizeof out, &bad) == BSX_BAD_STREAM && bad == 0);
        CHECK(decode(&o, 1, 1, out, 12, &bad) == BSX_OK);
        close_blob(&o);
    }
}

/* Pairs by rank with classes 0, 1: 1 1, 1 2, 2 1, 2 2. */
static void test_pairs(void) {
    blob_text text = {
        .layout = 2, .dtype = 1, .ndim = 1, .run_code = 0, .step = 0.25F, .symbols = 3, .pairs = 1, .block_rows = 6,
        .block_cols = 1, .index_width = 2, .dims = {6}, .codebook = "1 010 010 1 010",
        .blocks = {{"1 010 1", "011 010", 3}}, .block_count = 1,
    };
    const int8_t levels[6] = {-1, 0, 1, 1, 0, 0}; /* ranks 2, then 1: a partner that is not symbol 1 */
    opened o = open_blob(&text, BSX_INT8, 0);
    int8_t out[6];
    uint64_t bad = 99;
    CHECK(decode(&o, 0, 1, out, sizeof out, &bad) == BSX_BAD_STREAM && bad == 0);
    close_blob(&o);
    text.blocks[0].levels = "011 1";
    check_decodes(&text, BSX_INT8, levels, sizeof levels, "pairs as levels");
    const int16_t wide[6] = {-200, 0, 200, 200, 0, 0};
    text.codebook = "1 000000000 1100011110 010 1 010"; /* s = 797: z = 399, level 200; then -200 */
    check_decodes(&text, BSX_INT16, wide, sizeof wide, "pairs as symbols");
    text.codebook = "1 010 1 1 010"; /* levels 0, 1, 1: the symbols are not told apart by them */
    text.blocks[0].levels = "011 010";
    o = open_blob(&text, BSX_INT8, 0);
    CHECK(decode(&o, 0, 1, out, sizeof out, &bad) == BSX_BAD_STREAM && bad == 0);
    close_blob(&o);
}

/* Levels that a type does not hold. */
static void test_types(void) {
    blob_text text = {
        .layout = 1, .dtype = 1, .ndim = 1, .step = 1, .symbols = 1, .block_rows = 1, .block_cols = 1, .index_width = 2,
        .dims = {1}, .codebook = "0000000000 10000000010", /* s = 1025: z = 513 */ .blocks = {{NULL, "1", 0}},
        .block_count = 1,
    };
    opened o = open_blob(&text, BSX_INT16, 0);
    CHECK(o.head.least_level == 257 && o.head.greatest_level == 257);
    CHECK(bsx_prepare(o.blob, o.size, &o.head, BSX_INT8, o.workspace, o.head.workspace_bytes) == BSX_BAD_ARGUMENT);
    CHECK(bsx_prepare(o.blob, o.size, &o.head, BSX_INT32, o.workspace, o.head.workspace_bytes) == BSX_OK);
    CHECK(bsx_prepare(o.blob, o.size, &o.head, 2, o.workspace, o.head.workspace_bytes) == BSX_BAD_ARGUMENT);
    CHECK(bsx_prepare_with(o.blob, o.size, &o.head, BSX_INT32, bsx_simd_levels(), o.workspace,
                           o.head.workspace_bytes) == BSX_BAD_ARGUMENT);
    close_blob(&o);
}

/* A row of 10 in pieces of 4: the last block is short; one has no coded weight; codebook 3, 0, -3, z = 5, 0, 6. */
static void test_rl(void) {
    blob_text text = {
        .layout = 2, .dtype = 1, .ndim = 2, .run_code = 1, .step = 0.25F, .symbols = 3, .block_rows = 1,
        .block_cols = 4, .index_width = 2, .dims = {1, 10},
        .codebook = "0001010 0001011 0001100", /* s = 9, 10, 11: z = 5, 0, 6 */
        .blocks = {{"11 10 10", "1 010 1", 3}, {"", "", 0}, {"11", "010", 1}}, .block_count = 3,
    };
    const float weights[10] = {.75F, 0, -.75F, 0, .75F, .75F, .75F, .75F, .75F, -.75F};
    const int32_t levels[10] = {3, 0, -3, 0, 3, 3, 3, 3, 3, -3};
    check_decodes(&text, BSX_FLOAT32, weights, sizeof weights, "RL float32");
    check_decodes(&text, BSX_INT32, levels, sizeof levels, "RL levels");
    static const block_text wrong[] = {
        {"11 10 11", "1 010 1", 3}, /* runs 1 0 1: the third coded weight would lie at 4, beyond the block */
        {"11 10 10", "1 011 1", 3}, /* level value 2: symbol 3 of 3 */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        text.blocks[0] = wrong[i];
        opened o = open_blob(&text, BSX_FLOAT32, 0);
        float out[10];
        uint64_t bad = 99;
        CHECK(decode(&o, 0, 3, out, sizeof out, &bad) == BSX_BAD_STREAM && bad == 0);
        CHECK(decode(&o, 1, 2, out, 6 * sizeof out[0], &bad) == BSX_OK);
        close_blob(&o);
    }
}

static void test_raw(void) {
    const blob_text text = {
        .layout = 0, .dtype = 5, .ndim = 1, .block_rows = 2, .block_cols = 1, .index_width = 2, .dims = {3},
        .blocks = {{NULL, "00000001 00000000 11111111 11111111", 0}, {NULL, "00000010 00000001", 0}}, .block_count = 2,
    };
    const int16_t weights[3] = {1, -1, 258};
    check_decodes(&text, 5, weights, sizeof weights, "RAW int16");
    opened o = open_blob(&text, 5, 0);
    CHECK(bsx_prepare(o.blob, o.size, &o.head, BSX_INT32, o.workspace, o.head.workspace_bytes) == BSX_BAD_ARGUMENT);
    close_blob(&o);
}

/* One level, one weight: what level * step becomes. */
typedef struct rounding {
    const char *name, *codebook; /* one codeword of order 15 */
    uint8_t dtype;
    float step;
    uint64_t bits;
} rounding;

/* Levels: 2049 = z 4097 = s 8193; 257 = z 513 = s 1025; 1 = z 1 = s 1; 65520 = z 131039 = s 262077. Code: s + 32768. */
static const rounding roundings[] = {
    {"float16 2049 to even 2048", "1010000000000001", BSX_FLOAT16, 1.0F, 0x6800},
    {"float16 65520 to infinity", "0001001000111111111101", BSX_FLOAT16, 1.0F, 0x7C00},
    {"float16 2^-24", "1000000000000001", BSX_FLOAT16, 0x1p-24F, 0x0001},
    {"float16 2^-25 to even 0", "1000000000000001", BSX_FLOAT16, 0x1p-25F, 0x0000},
    {"float16 above 2^-25", "1000000000000001", BSX_FLOAT16, 0x1.000002p-25F, 0x0001},
    {"float16 2^-14", "1000000000000001", BSX_FLOAT16, 0x1p-14F, 0x0400},
    {"float16 up to 2^-14", "1000000000000001", BSX_FLOAT16, 0x1.FFFFFEp-15F, 0x0400},
    {"bfloat16 257 to even 256", "1000010000000001", BSX_BFLOAT16, 1.0F, 0x4380},
    {"bfloat16 to infinity", "1000000000000001", BSX_BFLOAT16, 0x1.FFFFFEp127F, 0x7F80},
    {"float32 257", "1000010000000001", BSX_FLOAT32, 1.0F, 0x43808000},
    {"float32 to infinity", "1000010000000001", BSX_FLOAT32, 0x1p120F, 0x7F800000},
    {"float64 of the float32 product", "1000000000000001", BSX_FLOAT64, 0.1F, UINT64_C(0x3FB99999A0000000)},
};

static void test_rounding(void) {
    for (size_t i = 0; i < sizeof roundings / sizeof roundings[0]; i++) {
        const rounding *r = &roundings[i];
        const blob_text text = {
            .layout = 1, .dtype = r->dtype, .ndim = 1, .codebook_code = 15, .step = r->step, .symbols = 1,
            .block_rows = 1, .block_cols = 1, .index_width = 2, .dims = {1}, .codebook = r->codebook,
            .blocks = {{NULL, "1", 0}}, .block_count = 1,
        };
        opened o = open_blob(&text, r->dtype, 0);
        uint64_t found = 0;
        CHECK_ROW(decode(&o, 0, 1, &found, o.head.item_bytes, NULL) == BSX_OK, r->name);
        CHECK_ROW(found == r->bits, r->name);
        close_blob(&o);
    }
}

/* The widest level, +-2^24: z = 2^25 - 1 and 2^25, s = 2^26 - 3 and 1; beyond it, z = 2^25 + 1. */
static void test_widest_level(void) {
    blob_text text = {
        .layout = 1, .dtype = 1, .ndim = 1, .step = 1, .symbols = 2, .block_rows = 2, .block_cols = 1, .index_width = 2,
        .dims = {2}, .codebook = "0000000000000000000000000 11111111111111111111111110 010",
        .blocks = {{NULL, "1 010", 0}}, .block_count = 1,
    };
    const float weights[2] = {16777216.0F, -16777216.0F};
    check_decodes(&text, BSX_FLOAT32, weights, sizeof weights, "levels +-2^24");
    text.codebook = "0000000000000000000000000 11111111111111111111111110 00100"; /* s = 3: z = 2^25 + 1 */
    size_t size;
    uint8_t *blob = write_blob(&text, &size);
    bsx_head head;
    CHECK(bsx_parse(blob, size, &head) == BSX_BAD_CODEBOOK);
    free(blob);
}

/* Blocks that are sealed by a right CRC, but whose streams are wrong. */
static void test_bad_streams(void) {
    static const struct {
        const char *name, *levels;
    } cases[] = {
        {"a symbol too large", "1 1 00101"}, {"a codeword too many", "1 1 1 1"}, {"one too few", "1 1"},
        {"padding", "1 1 1 00001"},          {"a byte too many", "1 1 1 00000 00000000"},
        {"cut off", "1 1 000000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const blob_text text = {
            .layout = 1, .dtype = 1, .ndim = 2, .step = 1, .symbols = 4, .block_rows = 1, .block_cols = 3,
            .index_width = 2, .dims = {2, 3}, .codebook = CODEBOOK,
            .blocks = {{NULL, "1 1 1", 0}, {NULL, cases[i].levels, 0}}, .block_count = 2,
        };
        opened o = open_blob(&text, BSX_FLOAT32, 0);
        float out[6];
        uint64_t bad = 99;
        CHECK_ROW(decode(&o, 0, 2, out, sizeof out, &bad) == BSX_BAD_STREAM && bad == 1, cases[i].name);
        o.blob[o.size - 1] ^= 0x80;
        bad = 99;
        CHECK_ROW(decode(&o, 0, 2, out, sizeof out, &bad) == BSX_BLOCK_CRC && bad == 1, cases[i].name);
        close_blob(&o);
    }
}

void test_decode(void) {
    test_eg();
    test_bm();
    test_pairs();
    test_types();
    test_rl();
    test_raw();
    test_rounding();
    test_widest_level();
    test_bad_streams();
}
