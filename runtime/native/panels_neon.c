/* panels_neon.c - the loops over the weights of a product, with vectors of 128 bits. */
#include "panels.h"

#include "inline.h"
#include "simd.h"

#if defined(BSX_NEON)
#include <arm_neon.h>

#define VECTOR float32x4_t
#define LANES 4
#define SET(x) vdupq_n_f32(x)
#define LOAD(p) vld1q_f32(p)
#define STORE(p, v) vst1q_f32(p, v)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define SUM(v) vaddvq_f32(v)
#define TARGET
#define KIND(name) name
#define DENSE_WIDTH 16
#include "panels_loops.h"

const bsx_panel_kernels bsx_panels_neon = {
    "neon", dot_dense, {row_8, row_16, row_32}, {rows_8, rows_16, rows_32}, {spread_8, spread_16, spread_32}};
#endif
