/* panels.h - the loops over the weights of a product, for every processor and for each kind of vector instructions.
 *
 * x is held in panels: PANEL columns' worth of its rows beside each other, panel[cols][width], so that one weight meets
 * `width` numbers at once. Sums may differ in their last bits from kind to kind. */
#ifndef BSX_PANELS_H
#define BSX_PANELS_H

#include <stddef.h>
#include <stdint.h>

#define BSX_WIDTHS 3U
#define BSX_WIDEST 32U
#define BSX_DENSE_ROWS 4U

/* Widths of panels: 8, 16 and 32. */
static inline unsigned bsx_panel_width(unsigned kind) { return 8U << kind; }

typedef struct bsx_panel_kernels {
    const char *name;
    /* The sum of weights[i] * x[i]. */
    float (*dot_dense)(const float *weights, size_t count, const float *x);
    /* For each width: out[width] = the sum of values[i] * panel[places[i]][0 .. width). */
    void (*row_sparse[BSX_WIDTHS])(float *out, const float *values, const uint16_t *places, size_t count,
                                   const float *panel);
    /* The same for BSX_DENSE_ROWS rows of `count` weights, `row` floats apart: out[BSX_DENSE_ROWS][width]. */
    void (*rows_dense[BSX_WIDTHS])(float *out, const float *weights, size_t row, size_t count, const float *panel);
    /* For each width: panel[places[i]][0 .. width) += values[i] * row[0 .. width). */
    void (*spread[BSX_WIDTHS])(float *panel, const float *values, const uint16_t *places, size_t count,
                               const float *row);
} bsx_panel_kernels;

/* By the numbers of bsx_kernels_of. */
const bsx_panel_kernels *bsx_panel_kernels_of(unsigned simd);

/* panels.c */
extern const bsx_panel_kernels bsx_panels_portable;
/* panels_x86.c */
extern const bsx_panel_kernels bsx_panels_avx2, bsx_panels_avx512;
/* panels_neon.c */
extern const bsx_panel_kernels bsx_panels_neon;

#endif
