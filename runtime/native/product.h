/* product.h - x times a coded matrix, whose dense form is never written to memory.
 *
 * The matrix is a blob of rows x cols, x has n rows. Transposed: y[n, rows] = x[n, cols] times the matrix's transpose (rows
 * are output units, as Gemm and FusedMatMul have it with transB=1); else y[n, cols] = x[n, rows] times it (MatMul). All are
 * float32 and row-major. Sums are those of the decoded weights, in another order than other libraries'. Where x is infinite
 * or no number, a weight of zero gives NaN or, as in layout RL whose symbol 0 is the level 0, is left out.
 *
 *     bsx_product_plan -> allocate shared_bytes, and scratch_bytes for each thread
 *     -> bsx_product_begin -> bsx_product_part for each part, from any threads -> bsx_product_end
 */
#ifndef BSX_PRODUCT_H
#define BSX_PRODUCT_H

#include <stdbool.h>

#include "bsx.h"

/* A blob and what decodes it: head by bsx_parse, workspace by bsx_prepare to BSX_FLOAT32. */
typedef struct bsx_matrix {
    const void *blob;
    size_t size;
    const bsx_head *head;
    const void *workspace;
    size_t workspace_bytes;
} bsx_matrix;

/* How a product is computed. Filled by bsx_product_plan, not to be changed. */
typedef struct bsx_product {
    uint64_t n;
    uint64_t parts;         /* calls of bsx_product_part, which may run at once */
    uint64_t blocks;        /* of the matrix in a part */
    uint64_t shared_bytes;  /* from begin to end, at any alignment */
    uint64_t scratch_bytes; /* of each thread, at any alignment */
    bool transposed;
} bsx_product;

/* threads: how many there are to share the work. BSX_BAD_ARGUMENT: the matrix is RAW, was prepared for another type, n or
 * threads is 0, or the buffers would be larger than there are addresses. */
bsx_status bsx_product_plan(const bsx_matrix *matrix, bool transposed, uint64_t n, unsigned threads, bsx_product *plan);

/* x_count: n times the matrix's cols, or rows if not transposed; x must stay until the end. */
bsx_status bsx_product_begin(const bsx_matrix *matrix, const bsx_product *plan, const float *x, size_t x_count,
                             void *shared, size_t shared_bytes);

/* y_count: n times the matrix's rows, or cols if not transposed. bad_block as in bsx_decode; y is then unspecified. */
bsx_status bsx_product_part(const bsx_matrix *matrix, const bsx_product *plan, uint64_t part, const float *x, float *y,
                            size_t y_count, void *shared, size_t shared_bytes, void *scratch, size_t scratch_bytes,
                            uint64_t *bad_block);

/* After all parts: y is whole. */
bsx_status bsx_product_end(const bsx_matrix *matrix, const bsx_product *plan, float *y, size_t y_count,
                           const void *shared, size_t shared_bytes);

/* Bytes that bsx_gather_rows needs. */
uint64_t bsx_gather_scratch_bytes(const bsx_matrix *matrix);

/* Rows of the matrix, as Gather on axis 0 has them: out[count, cols]. BSX_BAD_ARGUMENT: a row is not below rows. */
bsx_status bsx_gather_rows(const bsx_matrix *matrix, const uint64_t *rows, size_t count, float *out, size_t out_count,
                           void *scratch, size_t scratch_bytes, uint64_t *bad_block);

#endif
