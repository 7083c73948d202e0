/* test_product.c - products of matrices that are written out bit by bit, against sums in double precision. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blob.h"
#include "blob_writer.h"
#include "check.h"
#include "kernels.h"
#include "product.h"

#define STEP 0.25F
#define MOST_ROWS 40U
#define MOST_COLS 200U
#define MOST_N 100U

/* A matrix of levels as a test has it. zeros: weights of 100 that are zero, about. wide: some levels do not fit into int8_t.
 * filled: the most frequent level is not zero, so that no weight may be left out. */
typedef struct shape {
    const char *name;
    unsigned layout, rows, cols, block_rows, block_cols, zeros;
    bool wide, filled;
} shape;

static const shape shapes[] = {
    {"RL, whole rows", BSX_RL, 17, 50, 3, 50, 80, false, false},
    {"RL, one row a block", BSX_RL, 7, 200, 1, 200, 90, false, false},
    {"RL, rows in pieces", BSX_RL, 2, 130, 1, 60, 70, false, false},
    {"RL, empty rows", BSX_RL, 40, 9, 40, 9, 97, false, false},
    {"RL, nothing but zeros", BSX_RL, 5, 11, 2, 11, 100, false, false},
    {"RL, wide levels", BSX_RL, 12, 33, 4, 33, 80, true, false},
    {"RL, most frequent level not zero", BSX_RL, 6, 21, 2, 21, 60, false, true},
    {"BM, whole rows", BSX_BM, 11, 31, 4, 31, 50, false, false},
    {"BM, wide levels", BSX_BM, 9, 16, 9, 16, 50, true, false},
    {"BM, rows in pieces", BSX_BM, 2, 70, 1, 40, 50, false, false},
    {"EG, whole rows", BSX_EG, 13, 29, 5, 29, 20, false, false},
    {"EG, one column", BSX_EG, 10, 1, 10, 1, 20, true, false},
    {"EG, rows in pieces", BSX_EG, 2, 90, 1, 32, 20, false, false},
};

static const unsigned counts[] = {1, 2, 3, 8, 15, 16, 17, 33, 100};

static uint32_t state = 1;
static uint32_t draw(uint32_t below) {
    state = state * 1664525U + 1013904223U;
    return (state >> 8) % below;
}

/* The exp-Golomb code of order 0, as text. */
static void append_code(char *text, uint32_t value) {
    unsigned bits = 0;
    char *end = text + strlen(text);
    while ((value + 1) >> bits) bits++;
    for (unsigned i = 1; i < bits; i++) *end++ = '0';
    for (unsigned i = bits; i-- > 0;) *end++ = (value + 1) >> i & 1 ? '1' : '0';
    *end = 0;
}

/* The levels of the symbols, and their codebook in codes of order 0 (section 4). */
static void make_codebook(const shape *s, int32_t levels[4], char *text) {
    const int32_t narrow[4] = {0, 1, -1, 3}, wide[4] = {0, 1, -300, 129}, filled[4] = {2, 0, -1, 3};
    uint32_t before = 0;
    memcpy(levels, s->filled ? filled : s->wide ? wide : narrow, sizeof narrow);
    *text = 0;
    for (unsigned i = 0; i < 4; i++) {
        const uint32_t place = 2 * (uint32_t)abs(levels[i]) - (levels[i] > 0);
        append_code(text, place > before ? 2 * (place - before) - 1 : 2 * (before - place));
        before = place;
    }
}

/* The streams of one block of symbols. */
static void write_block_text(const shape *s, const uint8_t *symbols, size_t count, char *runs, char *levels,
                             block_text *out) {
    uint32_t run = 0;
    *runs = *levels = 0;
    *out = (block_text){runs, levels, 0};
    for (size_t i = 0; i < count; i++) {
        if (s->layout == BSX_EG) {
            append_code(levels, symbols[i]);
        } else if (symbols[i] != 0) {
            append_code(levels, symbols[i] - 1U);
            if (s->layout == BSX_RL) append_code(runs, run);
            run = 0;
            out->coded++;
        } else {
            run++;
        }
    }
    if (s->layout != BSX_BM) return;
    for (size_t i = 0; i < (count + 7) / 8 * 8; i++) { /* bit 0 is the least significant, and text begins with bit 7 */
        const size_t at = i / 8 * 8 + 7 - i % 8;
        runs[i] = at < count && symbols[at] != 0 ? '1' : '0';
        runs[i + 1] = 0;
    }
    out->coded = 0;
}

/* A blob, what decodes it, and its weights. */
typedef struct given {
    bsx_matrix matrix;
    bsx_head head;
    uint8_t *blob;
    void *workspace;
    float weights[MOST_ROWS * MOST_COLS];
} given;

static char texts[8][2][40 * MOST_COLS];

static void make(const shape *s, unsigned simd, given *g) {
    static uint8_t symbols[MOST_ROWS * MOST_COLS];
    int32_t levels[4];
    char codebook[200];
    blob_text text = {(uint8_t)s->layout, BSX_FLOAT32, 2, 0, 0, 0, STEP, 4, s->block_rows, s->block_cols, 4, 0,
                      {s->rows, s->cols}, codebook, {{0, 0, 0}}, 0};
    make_codebook(s, levels, codebook);
    for (unsigned i = 0; i < s->rows * s->cols; i++) {
        symbols[i] = (uint8_t)(draw(100) < s->zeros ? 0 : 1 + draw(3));
        g->weights[i] = (float)levels[symbols[i]] * STEP;
    }
    for (unsigned row = 0; row < s->rows; row += s->block_rows) {
        for (unsigned col = 0; col < s->cols; col += s->block_cols) {
            const unsigned rows = s->rows - row < s->block_rows ? s->rows - row : s->block_rows;
            const unsigned cols = s->cols - col < s->block_cols ? s->cols - col : s->block_cols;
            const unsigned i = text.block_count++;
            write_block_text(s, symbols + row * s->cols + col, rows * cols, texts[i % 8][0], texts[i % 8][1],
                             &text.blocks[i % 8]);
        }
    }
    CHECK_ROW(text.block_count <= 8, s->name);
    g->blob = write_blob(&text, &g->matrix.size);
    CHECK_ROW(bsx_parse(g->blob, g->matrix.size, &g->head) == BSX_OK, s->name);
    g->workspace = malloc(g->head.workspace_bytes);
    g->matrix = (bsx_matrix){g->blob, g->matrix.size, &g->head, g->workspace, g->head.workspace_bytes};
    CHECK_ROW(bsx_prepare_with(g->blob, g->matrix.size, &g->head, BSX_FLOAT32, simd, g->workspace,
                               g->head.workspace_bytes) == BSX_OK, s->name);
}

static void drop(given *g) {
    free(g->blob);
    free(g->workspace);
}

/* A product in memory of exactly the right size; the status, and y. */
static bsx_status multiply(const given *g, bool transposed, unsigned n, unsigned threads, const float *x, float *y,
                           uint64_t *bad_block) {
    const size_t in = transposed ? g->head.cols : g->head.rows, out = transposed ? g->head.rows : g->head.cols;
    bsx_product plan;
    CHECK(bsx_product_plan(&g->matrix, transposed, n, threads, &plan) == BSX_OK);
    void *shared = malloc(plan.shared_bytes), *scratch = malloc(plan.scratch_bytes);
    bsx_status status = bsx_product_begin(&g->matrix, &plan, x, n * in, shared, plan.shared_bytes);
    for (uint64_t part = plan.parts; part-- > 0 && status == BSX_OK;) { /* in whatever order */
        status = bsx_product_part(&g->matrix, &plan, part, x, y, n * out, shared, plan.shared_bytes, scratch,
                                  plan.scratch_bytes, bad_block);
    }
    if (status == BSX_OK) status = bsx_product_end(&g->matrix, &plan, y, n * out, shared, plan.shared_bytes);
    free(shared);
    free(scratch);
    return status;
}

static void check_product(const shape *s, const given *g, bool transposed, unsigned n, unsigned threads) {
    const unsigned in = transposed ? s->cols : s->rows, out = transposed ? s->rows : s->cols;
    float *x = malloc(n * in * sizeof(float)), *y = malloc(n * out * sizeof(float));
    for (unsigned i = 0; i < n * in; i++) x[i] = (float)draw(2001) / 1000.0F - 1.0F;
    CHECK_ROW(multiply(g, transposed, n, threads, x, y, NULL) == BSX_OK, s->name);
    double worst = 0;
    for (unsigned j = 0; j < n; j++) {
        for (unsigned o = 0; o < out; o++) {
            double sum = 0, size = 0;
            for (unsigned i = 0; i < in; i++) {
                const double weight = g->weights[transposed ? o * s->cols + i : i * s->cols + o];
                sum += weight * x[j * in + i];
                size += fabs(weight * x[j * in + i]);
            }
            const double error = fabs(sum - y[j * out + o]) / (size + 1e-30);
            worst = isnan(error) || error > worst ? error : worst;
        }
    }
    CHECK_ROW(worst < 1e-6, s->name); /* of the sum of magnitudes: a few roundings of 2^-24 */
    free(x);
    free(y);
}

static void test_products(void) {
    static given g;
    for (unsigned simd = 0; simd < bsx_simd_levels(); simd++) {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            make(&shapes[i], simd, &g);
            for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
                for (unsigned threads = 1; threads <= 3; threads += 2) {
                    check_product(&shapes[i], &g, true, counts[k], threads);
                    check_product(&shapes[i], &g, false, counts[k], threads);
                }
            }
            drop(&g);
        }
    }
}

/* 2 x 3, written out: rows (0.25, 0, -0.25) and (0, 0.75, 0). */
static void test_literal_product(void) {
    const blob_text text = {BSX_RL, BSX_FLOAT32, 2, 0, 0, 0, STEP, 4, 2, 3, 4, 0, {2, 3},
                            "1 010 010 00110", /* 0, 1, -1, then z from 2 to 5: level 3 */
                            {{"1 010 010", "1 010 011", 3}}, 1};
    const float x[6] = {1, 2, 4, 8, 16, 32}, column[2] = {1, 2};
    float y[6];
    given g;
    g.blob = write_blob(&text, &g.matrix.size);
    CHECK(bsx_parse(g.blob, g.matrix.size, &g.head) == BSX_OK);
    g.workspace = malloc(g.head.workspace_bytes);
    g.matrix = (bsx_matrix){g.blob, g.matrix.size, &g.head, g.workspace, g.head.workspace_bytes};
    CHECK(bsx_prepare(g.blob, g.matrix.size, &g.head, BSX_FLOAT32, g.workspace, g.head.workspace_bytes) == BSX_OK);
    CHECK(multiply(&g, true, 2, 1, x, y, NULL) == BSX_OK);
    const float expected[4] = {-0.75F, 1.5F, -6.0F, 12.0F};
    CHECK(memcmp(y, expected, sizeof expected) == 0);
    CHECK(multiply(&g, false, 1, 1, column, y, NULL) == BSX_OK);
    const float plain[3] = {0.25F, 1.5F, -0.25F};
    CHECK(memcmp(y, plain, sizeof plain) == 0);
    drop(&g);
}

static void test_gather(void) {
    static given g;
    static float out[8 * MOST_COLS];
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const shape *s = &shapes[i];
        const uint64_t rows[5] = {s->rows - 1U, 0, s->rows / 2U, 0, s->rows - 1U}, beyond[1] = {s->rows};
        make(s, bsx_simd_best(), &g);
        const size_t bytes = bsx_gather_scratch_bytes(&g.matrix);
        void *scratch = malloc(bytes);
        CHECK_ROW(bsx_gather_rows(&g.matrix, rows, 5, out, 5 * s->cols, scratch, bytes, NULL) == BSX_OK, s->name);
        for (unsigned k = 0; k < 5; k++) {
            CHECK_ROW(memcmp(out + k * s->cols, g.weights + rows[k] * s->cols, s->cols * sizeof(float)) == 0, s->name);
        }
        CHECK_ROW(bsx_gather_rows(&g.matrix, beyond, 1, out, s->cols, scratch, bytes, NULL) == BSX_BAD_ARGUMENT, s->name);
        CHECK_ROW(bsx_gather_rows(&g.matrix, rows, 5, out, 5 * s->cols - 1, scratch, bytes, NULL) == BSX_BAD_ARGUMENT,
                  s->name);
        CHECK_ROW(bsx_gather_rows(&g.matrix, rows, 0, out, 0, scratch, bytes, NULL) == BSX_OK, s->name);
        free(scratch);
        drop(&g);
    }
}

/* A byte of the payload that is changed is found, and its block named; runs beyond a block are, too. */
static void test_damage(void) {
    static given g;
    static float x[MOST_COLS], y[MOST_ROWS];
    const shape *s = &shapes[0];
    uint64_t bad = 0;
    make(s, bsx_simd_best(), &g);
    g.blob[g.matrix.size - 1] ^= 0x10;
    CHECK(multiply(&g, true, 1, 1, x, y, &bad) == BSX_BLOCK_CRC);
    CHECK(bad == g.head.blocks - 1);
    drop(&g);
    const blob_text text = {BSX_RL, BSX_FLOAT32, 2, 0, 0, 0, STEP, 4, 2, 3, 4, 0, {2, 3}, "1 010 010 00110",
                            {{"00101 010", "1 1", 2}}, 1}; /* runs of 4 and 1: 7 weights of 6 */
    g.blob = write_blob(&text, &g.matrix.size);
    CHECK(bsx_parse(g.blob, g.matrix.size, &g.head) == BSX_OK);
    g.workspace = malloc(g.head.workspace_bytes);
    g.matrix = (bsx_matrix){g.blob, g.matrix.size, &g.head, g.workspace, g.head.workspace_bytes};
    CHECK(bsx_prepare(g.blob, g.matrix.size, &g.head, BSX_FLOAT32, g.workspace, g.head.workspace_bytes) == BSX_OK);
    CHECK(multiply(&g, true, 1, 1, x, y, &bad) == BSX_BAD_STREAM);
    CHECK(multiply(&g, false, 1, 1, x, y, &bad) == BSX_BAD_STREAM);
    CHECK(bad == 0);
    drop(&g);
}

static void test_arguments(void) {
    static given g;
    float number = 0;
    bsx_product plan;
    make(&shapes[0], 0, &g);
    CHECK(bsx_product_plan(&g.matrix, true, 0, 1, &plan) == BSX_BAD_ARGUMENT);
    CHECK(bsx_product_plan(&g.matrix, true, 1, 0, &plan) == BSX_BAD_ARGUMENT);
    CHECK(bsx_product_plan(&g.matrix, true, UINT64_MAX / 4, 1, &plan) == BSX_BAD_ARGUMENT);
    CHECK(bsx_product_plan(&g.matrix, false, UINT64_MAX / 64, UINT32_MAX, &plan) == BSX_BAD_ARGUMENT);
    /* As many rows as the pixels of some pictures; in panels 32 wide, the matrix has 17 rows and 50 columns. */
    CHECK(bsx_product_plan(&g.matrix, true, 1 << 22, 1, &plan) == BSX_OK);
    CHECK(plan.shared_bytes == (UINT64_C(1) << 22) * 50 * 4 + BSX_ALIGNMENT);
    CHECK(bsx_product_plan(&g.matrix, true, 1, 1, &plan) == BSX_OK);
    CHECK(bsx_product_begin(&g.matrix, &plan, &number, 1, &number, plan.shared_bytes) == BSX_BAD_ARGUMENT);
    CHECK(bsx_product_part(&g.matrix, &plan, plan.parts, &number, &number, g.head.rows, &number, plan.shared_bytes,
                           &number, plan.scratch_bytes, NULL) == BSX_BAD_ARGUMENT);
    CHECK(bsx_product_part(&g.matrix, &plan, 0, &number, &number, g.head.rows, &number, plan.shared_bytes, &number,
                           plan.scratch_bytes - 1, NULL) == BSX_BAD_ARGUMENT);
    CHECK(bsx_prepare(g.blob, g.matrix.size, &g.head, BSX_INT16, g.workspace, g.head.workspace_bytes) == BSX_OK);
    CHECK(bsx_product_plan(&g.matrix, true, 1, 1, &plan) == BSX_BAD_ARGUMENT); /* prepared for another type */
    drop(&g);
}

void test_product(void) {
    test_literal_product();
    test_products();
    test_gather();
    test_damage();
    test_arguments();
}
