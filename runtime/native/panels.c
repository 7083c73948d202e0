/* panels.c - the loops over the weights of a product for every processor, and which kinds there are. */
#include "panels.h"

#include "inline.h"
#include "simd.h"

/* One number at a time: compilers make vectors of those beside each other. */
#define VECTOR float
#define LANES 1
#define SET(x) (x)
#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define FMA(a, b, c) ((a) * (b) + (c))
#define SUM(v) (v)
#define TARGET
#define KIND(name) name
#define DENSE_WIDTH 8
#include "panels_loops.h"

const bsx_panel_kernels bsx_panels_portable = {
    "portable", dot_dense, {row_8, row_16, row_32}, {rows_8, rows_16, rows_32}, {spread_8, spread_16, spread_32}};

const bsx_panel_kernels *bsx_panel_kernels_of(unsigned simd) {
#if defined(BSX_X86)
    static const bsx_panel_kernels *const kinds[] = {&bsx_panels_portable, &bsx_panels_portable, &bsx_panels_avx2,
                                                     &bsx_panels_avx512};
#elif defined(BSX_NEON)
    static const bsx_panel_kernels *const kinds[] = {&bsx_panels_portable, &bsx_panels_neon};
#else
    static const bsx_panel_kernels *const kinds[] = {&bsx_panels_portable};
#endif
    return kinds[simd];
}
