/* panels_loops.h - the loops of bsx_panel_kernels over vectors of LANES numbers, included once for each kind of vectors.
 *
 * Needs the type VECTOR; LANES; SET(x), LOAD(p), STORE(p, v), FMA(a, b, c) = a * b + c and SUM(v); TARGET, what functions
 * are compiled for; KIND(name), a name of this kind's own; DENSE_WIDTH, columns of which BSX_DENSE_ROWS rows of sums stay in
 * registers. */

#define VECTORS(width) ((width) / LANES)

/* So many sums are kept of each column, since each waits for the one before it. */
#define CHAINS(width) (VECTORS(width) >= 8 ? 1 : VECTORS(width) == 4 ? 2 : 4)

TARGET static float KIND(dot_dense)(const float *weights, size_t count, const float *x) {
    VECTOR sums[4] = {SET(0), SET(0), SET(0), SET(0)};
    size_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        for (unsigned j = 0; j < 4; j++) {
            sums[j] = FMA(LOAD(weights + i + j * LANES), LOAD(x + i + j * LANES), sums[j]);
        }
    }
    float rest = 0;
    for (; i < count; i++) rest += weights[i] * x[i];
    return ((SUM(sums[0]) + SUM(sums[1])) + (SUM(sums[2]) + SUM(sums[3]))) + rest;
}

TARGET ALWAYS_INLINE void KIND(row)(float *out, const float *values, const uint16_t *places, size_t count,
                                    const float *panel, const unsigned width) {
    VECTOR sums[4][BSX_WIDEST / LANES];
    for (unsigned c = 0; c < CHAINS(width); c++) {
        for (unsigned v = 0; v < VECTORS(width); v++) sums[c][v] = SET(0);
    }
    size_t i = 0;
    for (; i + CHAINS(width) <= count; i += CHAINS(width)) {
        for (unsigned c = 0; c < CHAINS(width); c++) {
            const float *x = panel + (size_t)places[i + c] * width;
            const VECTOR value = SET(values[i + c]);
            for (unsigned v = 0; v < VECTORS(width); v++) sums[c][v] = FMA(value, LOAD(x + v * LANES), sums[c][v]);
        }
    }
    for (; i < count; i++) {
        const float *x = panel + (size_t)places[i] * width;
        const VECTOR value = SET(values[i]);
        for (unsigned v = 0; v < VECTORS(width); v++) sums[0][v] = FMA(value, LOAD(x + v * LANES), sums[0][v]);
    }
    for (unsigned v = 0; v < VECTORS(width); v++) {
        for (unsigned c = 1; c < CHAINS(width); c++) sums[0][v] = FMA(SET(1), sums[c][v], sums[0][v]);
        STORE(out + v * LANES, sums[0][v]);
    }
}

/* The sums of BSX_DENSE_ROWS rows and of `width` columns of a panel that is `stride` wide. */
TARGET ALWAYS_INLINE void KIND(tile)(float *out, const float *weights, size_t row, size_t count, const float *panel,
                                     const unsigned stride, const unsigned width) {
    VECTOR sums[BSX_DENSE_ROWS][BSX_WIDEST / LANES];
    for (unsigned r = 0; r < BSX_DENSE_ROWS; r++) {
        for (unsigned v = 0; v < VECTORS(width); v++) sums[r][v] = SET(0);
    }
    for (size_t i = 0; i < count; i++) {
        for (unsigned v = 0; v < VECTORS(width); v++) {
            const VECTOR x = LOAD(panel + i * stride + v * LANES);
            for (unsigned r = 0; r < BSX_DENSE_ROWS; r++) sums[r][v] = FMA(SET(weights[r * row + i]), x, sums[r][v]);
        }
    }
    for (unsigned r = 0; r < BSX_DENSE_ROWS; r++) {
        for (unsigned v = 0; v < VECTORS(width); v++) STORE(out + r * stride + v * LANES, sums[r][v]);
    }
}

TARGET ALWAYS_INLINE void KIND(rows)(float *out, const float *weights, size_t row, size_t count, const float *panel,
                                     const unsigned width) {
    const unsigned columns = width < DENSE_WIDTH ? width : DENSE_WIDTH;
    for (unsigned c = 0; c < width; c += columns) {
        KIND(tile)(out + c, weights, row, count, panel + c, width, columns);
    }
}

TARGET ALWAYS_INLINE void KIND(spread)(float *panel, const float *values, const uint16_t *places, size_t count,
                                       const float *row, const unsigned width) {
    VECTOR x[BSX_WIDEST / LANES];
    for (unsigned v = 0; v < VECTORS(width); v++) x[v] = LOAD(row + v * LANES);
    for (size_t i = 0; i < count; i++) {
        float *to = panel + (size_t)places[i] * width;
        const VECTOR value = SET(values[i]);
        for (unsigned v = 0; v < VECTORS(width); v++) STORE(to + v * LANES, FMA(value, x[v], LOAD(to + v * LANES)));
    }
}

#define OF_WIDTH(width)                                                                                                \
    TARGET static void KIND(row_##width)(float *out, const float *values, const uint16_t *places, size_t count,        \
                                         const float *panel) {                                                         \
        KIND(row)(out, values, places, count, panel, width);                                                           \
    }                                                                                                                  \
    TARGET static void KIND(rows_##width)(float *out, const float *weights, size_t row, size_t count,                  \
                                          const float *panel) {                                                        \
        KIND(rows)(out, weights, row, count, panel, width);                                                            \
    }                                                                                                                  \
    TARGET static void KIND(spread_##width)(float *panel, const float *values, const uint16_t *places, size_t count,   \
                                            const float *row) {                                                        \
        KIND(spread)(panel, values, places, count, row, width);                                                        \
    }
#if LANES <= 8
OF_WIDTH(8)
#endif
OF_WIDTH(16)
OF_WIDTH(32)

#undef VECTORS
#undef CHAINS
#undef OF_WIDTH
#undef VECTOR
#undef LANES
#undef SET
#undef LOAD
#undef STORE
#undef FMA
#undef SUM
#undef TARGET
#undef KIND
#undef DENSE_WIDTH
