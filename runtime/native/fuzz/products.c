/* products.c - fuzz target: any bytes as a blob, as they are and with the right CRCs, multiplied both ways and gathered from,
 * with each kind of kernels. All must end as decoding does, and agree with sums of what it gives. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "../kernels.h"
#include "../product.h"
#include "seal.h"
#include "target.h"

#define MOST_WEIGHTS 20000U /* in double precision, eight times */

/* A blob that is prepared to float32, and its weights where it is sound. */
typedef struct opened {
    bsx_matrix matrix;
    bsx_status status;
    uint64_t bad_block;
    float *weights;
} opened;

/* How to multiply. */
typedef struct choice {
    bool transposed;
    uint64_t n;
    unsigned threads;
} choice;

/* Small whole numbers of both signs. */
static float *make_x(size_t count) {
    float *x = exactly(count * sizeof(float));
    for (size_t i = 0; i < count; i++) x[i] = (float)(i * 7 % 5) - 2;
    return x;
}

static bsx_status multiply(const bsx_matrix *m, const choice *c, const float *x, size_t x_count, float *y, size_t y_count,
                           uint64_t *bad) {
    bsx_product plan;
    demand(bsx_product_plan(m, c->transposed, c->n, c->threads, &plan) == BSX_OK);
    const size_t shared_bytes = (size_t)plan.shared_bytes, scratch_bytes = (size_t)plan.scratch_bytes;
    void *shared = exactly(shared_bytes), *scratch = exactly(scratch_bytes);
    demand(bsx_product_begin(m, &plan, x, x_count, shared, shared_bytes) == BSX_OK);
    bsx_status status = BSX_OK;
    for (uint64_t part = 0; part < plan.parts && status == BSX_OK; part++) {
        status = bsx_product_part(m, &plan, part, x, y, y_count, shared, shared_bytes, scratch, scratch_bytes, bad);
    }
    if (status == BSX_OK) demand(bsx_product_end(m, &plan, y, y_count, shared, shared_bytes) == BSX_OK);
    free(shared);
    free(scratch);
    return status;
}

/* One sum in double precision. Weights may be as large as float32 has them: then there is nothing to compare. */
static void check_sum(const opened *o, const choice *c, const float *x, size_t out, float y) {
    const size_t rows = (size_t)o->matrix.head->rows, cols = (size_t)o->matrix.head->cols, in = c->transposed ? cols : rows;
    double sum = 0, size = 0;
    for (size_t i = 0; i < in; i++) {
        const double product = (double)o->weights[c->transposed ? out * cols + i : i * cols + out] * x[i];
        sum += product;
        size += fabs(product);
    }
    if (!(size < FLT_MAX / 4)) return;
    demand(fabs(sum - y) <= ((double)in + 2) * (size * FLT_EPSILON + FLT_MIN));
}

static void check_product(const opened *o, const choice *c) {
    const bsx_head *head = o->matrix.head;
    const size_t in = (size_t)(c->transposed ? head->cols : head->rows), out = (size_t)(head->rows * head->cols / in);
    const size_t n = (size_t)c->n;
    float *x = make_x(n * in), *y = exactly(n * out * sizeof(float));
    uint64_t bad = 0;
    const bsx_status status = multiply(&o->matrix, c, x, n * in, y, n * out, &bad);
    demand(status == o->status && bad == o->bad_block);
    for (size_t i = 0; i < n && status == BSX_OK; i += n > 1 ? n - 1 : 1) { /* the first and the last row of x */
        for (size_t k = 0; k < out; k++) check_sum(o, c, x + i * in, k, y[i * out + k]);
    }
    free(x);
    free(y);
}

/* The last row, the first and the last again, which are those decoded. */
static void check_gather(const opened *o) {
    const bsx_head *head = o->matrix.head;
    const size_t cols = (size_t)head->cols, bytes = (size_t)bsx_gather_scratch_bytes(&o->matrix);
    const uint64_t rows[3] = {head->rows - 1, 0, head->rows - 1};
    void *scratch = exactly(bytes);
    float *out = exactly(3 * cols * sizeof(float));
    uint64_t bad = 0;
    const bsx_status status = bsx_gather_rows(&o->matrix, rows, 3, out, 3 * cols, scratch, bytes, &bad);
    demand(o->status != BSX_OK || status == BSX_OK);
    demand(bad < head->blocks);
    for (size_t k = 0; k < 3 && o->status == BSX_OK; k++) {
        demand(memcmp(out + k * cols, o->weights + rows[k] * cols, cols * sizeof(float)) == 0);
    }
    free(scratch);
    free(out);
}

/* Decode with kernels for every processor; what is multiplied is held to that. */
static void decode(opened *o, uint8_t *workspace) {
    const bsx_head *head = o->matrix.head;
    const size_t bytes = (size_t)head->weights * sizeof(float);
    void *scratch = exactly((size_t)head->scratch_bytes);
    o->weights = exactly(bytes);
    o->bad_block = 0;
    o->status = bsx_decode(o->matrix.blob, o->matrix.size, head, workspace, head->workspace_bytes, 0, head->blocks, 0,
                           o->weights, bytes, scratch, head->scratch_bytes, &o->bad_block);
    free(scratch);
}

static void check_blob(const uint8_t *blob, size_t size, const bsx_head *head) {
    static const uint64_t columns[] = {1, 2, 9, 16, 33};
    const uint32_t some = bsx_crc32c(blob, size);
    uint8_t *workspace = exactly((size_t)head->workspace_bytes);
    opened o = {{blob, size, head, workspace, head->workspace_bytes}, BSX_OK, 0, NULL};
    for (unsigned simd = 0; simd < bsx_simd_levels(); simd++) {
        demand(bsx_prepare_with(blob, size, head, BSX_FLOAT32, simd, workspace, head->workspace_bytes) == BSX_OK);
        if (simd == 0) decode(&o, workspace);
        for (unsigned transposed = 0; transposed < 2; transposed++) {
            const choice column = {transposed == 1, 1, 1 + some % 3}, panels = {transposed == 1, columns[some % 5], 2};
            check_product(&o, &column);
            check_product(&o, &panels);
        }
        check_gather(&o);
    }
    free(o.weights);
    free(workspace);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *blob = exactly(size);
    memcpy(blob, data, size);
    for (int sealed = 0; sealed < 2; sealed++) {
        bsx_head head;
        const bool sound = bsx_parse(blob, size, &head) == BSX_OK;
        if (sound && head.layout != BSX_RAW && head.weights <= MOST_WEIGHTS) check_blob(blob, size, &head);
        seal(blob, size);
    }
    free(blob);
    return 0;
}
