/* panels_x86.c - the loops over the weights of a product, with vectors of 256 and of 512 bits. */
#include "panels.h"

#include "inline.h"
#include "simd.h"

#if defined(BSX_X86)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))

AVX2 static inline float sum_256(__m256 v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

#define VECTOR __m256
#define LANES 8
#define SET(x) _mm256_set1_ps(x)
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SUM(v) sum_256(v)
#define TARGET AVX2
#define KIND(name) name##_256
#define DENSE_WIDTH 16
#include "panels_loops.h"

const bsx_panel_kernels bsx_panels_avx2 = {"avx2",
                                           dot_dense_256,
                                           {row_8_256, row_16_256, row_32_256},
                                           {rows_8_256, rows_16_256, rows_32_256},
                                           {spread_8_256, spread_16_256, spread_32_256}};

#define AVX512 __attribute__((target("avx2,fma,avx512f")))

#define VECTOR __m512
#define LANES 16
#define SET(x) _mm512_set1_ps(x)
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SUM(v) _mm512_reduce_add_ps(v)
#define TARGET AVX512
#define KIND(name) name##_512
#define DENSE_WIDTH 32
#include "panels_loops.h"

const bsx_panel_kernels bsx_panels_avx512 = {"avx512",
                                             dot_dense_512,
                                             {row_8_256, row_16_512, row_32_512},
                                             {rows_8_256, rows_16_512, rows_32_512},
                                             {spread_8_256, spread_16_512, spread_32_512}};
#endif
