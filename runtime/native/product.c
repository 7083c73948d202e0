/* product.c - x times a coded matrix: blocks are decoded into lists of places and values, and those meet panels of x. */
#include "product.h"

#include <string.h>

#include "group.h"
#include "inline.h"
#include "panels.h"

#define PART_BLOCKS 4U /* of a part, where threads share the work: decoded side by side */
#define LIST_SLOP 64U  /* bytes past a list that stores of whole vectors may reach */

/* Columns of x beside each other. */
typedef struct panel {
    unsigned kind, width;
    uint64_t first, used; /* of the n columns of x's transpose */
    size_t offset;        /* floats before it, for each unit of the other dimension */
} panel;

/* A thread's lists of one block, behind what decoding needs. */
typedef struct lists {
    float *values;    /* a block's coded weights, or all of its weights */
    uint16_t *places; /* their columns, from the block's first */
    uint32_t *starts; /* of rows in those, and the end */
    float *sums;      /* [block_rows + BSX_DENSE_ROWS][BSX_WIDEST] */
} lists;

typedef struct work {
    bsx_job job;
    const bsx_panel_kernels *kernels;
    const bsx_product *plan;
    const float *x, *panels; /* panels of x */
    float *y, *spread;       /* y, and what a part's products are added up in, panels like those of x */
    lists lists;
    bool sparse;
} work;

/* a * b + c, or UINT64_MAX if that is too large. */
static uint64_t add_product(uint64_t a, uint64_t b, uint64_t c) {
    if (a != 0 && b > (UINT64_MAX - c) / a) return UINT64_MAX;
    return a * b + c;
}

static uint64_t aligned(uint64_t bytes) {
    return bytes > UINT64_MAX - BSX_ALIGNMENT ? UINT64_MAX : (bytes + BSX_ALIGNMENT - 1) / BSX_ALIGNMENT * BSX_ALIGNMENT;
}

/* ---- panels ---- */

/* The narrowest panel for so many columns, or the widest. */
static unsigned kind_for(uint64_t columns) {
    unsigned kind = 0;
    while (kind + 1 < BSX_WIDTHS && bsx_panel_width(kind) < columns) kind++;
    return kind;
}

/* The panel after `before`, or the first after none. False: there is none. */
static bool next_panel(panel *p, uint64_t n) {
    const uint64_t first = p->first + p->used;
    if (first >= n) return false;
    p->offset += p->width;
    p->first = first;
    p->kind = kind_for(n - first);
    p->width = bsx_panel_width(p->kind);
    p->used = n - first < p->width ? n - first : p->width;
    return true;
}

static const panel no_panel = {0, 0, 0, 0, 0};

/* Columns of all panels together: n and what fills up the last one. */
static uint64_t padded(uint64_t n) {
    const uint64_t whole = n / BSX_WIDEST * BSX_WIDEST;
    return whole + (n > whole ? bsx_panel_width(kind_for(n - whole)) : 0);
}

/* panel[i][j] = x[first + j][i] for `count` units of x. */
static void fill_panel(float *out, const panel *p, const float *x, size_t count) {
    enum { AT_A_TIME = 16 }; /* numbers of a cache line */
    for (size_t from = 0; from < count; from += AT_A_TIME) {
        const size_t to = count - from < AT_A_TIME ? count : from + AT_A_TIME;
        for (unsigned j = 0; j < p->width; j++) {
            const float *row = x + (p->first + j) * count;
            for (size_t i = from; i < to; i++) out[i * p->width + j] = j < p->used ? row[i] : 0.0F;
        }
    }
}

/* y[first + j][at + i] = sums[i][j], or added to it, for `count` units of y, which has `units`. */
static void write_sums(float *y, const panel *p, const float *sums, size_t count, size_t units, size_t at, bool add) {
    for (unsigned j = 0; j < p->used; j++) {
        float *out = y + (p->first + j) * units + at;
        for (size_t i = 0; i < count; i++) out[i] = sums[i * p->width + j] + (add ? out[i] : 0.0F);
    }
}

/* ---- lists ---- */

/* Where the lists lie in a thread's scratch; returns the bytes of all. NULL: only count. */
static uint64_t place_lists(const bsx_head *head, uint8_t *scratch, lists *l) {
    const uint64_t weights = (uint64_t)head->block_rows * head->block_cols;
    const uint64_t values = head->scratch_bytes + BSX_ALIGNMENT;
    const uint64_t places = values + aligned((weights + 1) * sizeof(float) + LIST_SLOP);
    const uint64_t starts = places + aligned((weights + 1) * sizeof(uint16_t) + LIST_SLOP);
    const uint64_t sums = starts + aligned(((uint64_t)head->block_rows + 1) * sizeof(uint32_t));
    if (scratch != NULL) {
        uint8_t *base = (uint8_t *)bsx_align(scratch + head->scratch_bytes) - head->scratch_bytes;
        l->values = (float *)(void *)(base + values - BSX_ALIGNMENT);
        l->places = (uint16_t *)(void *)(base + places - BSX_ALIGNMENT);
        l->starts = (uint32_t *)(void *)(base + starts - BSX_ALIGNMENT);
        l->sums = (float *)(void *)(base + sums - BSX_ALIGNMENT);
    }
    return sums + ((uint64_t)head->block_rows + BSX_DENSE_ROWS) * BSX_WIDEST * sizeof(float);
}

/* The weights that a block's runs reach over, up to the last coded one. */
static uint64_t span_of(const bsx_lane *l) {
    uint64_t span = l->coded;
    for (uint32_t i = 0; i < l->coded; i++) span += l->runs[i];
    return span;
}

/* Places of the next four coded weights, from the place after the last one. */
ALWAYS_INLINE void next_places(const uint16_t *runs, int64_t at, int64_t places[4]) {
    places[0] = at + runs[0];
    places[1] = places[0] + runs[1] + 1;
    places[2] = places[1] + runs[2] + 1;
    places[3] = places[2] + runs[3] + 1;
}

/* From runs to places: the columns of the coded weights, row by row. The runs reach over no more than the block. */
static void list_places(const bsx_lane *l, size_t rows, size_t cols, const lists *out) {
    const uint16_t *const runs = l->runs;
    const int64_t end = (int64_t)cols;
    const uint32_t coded = l->coded;
    uint32_t i = 0;
    int64_t at = 0, places[4]; /* at: the place after the last coded weight, below 0 in an earlier row */
    for (size_t row = 0; row < rows; row++, at -= end) {
        out->starts[row] = i;
        for (; i + 4 <= coded; i += 4, at = places[3] + 1) {
            next_places(runs + i, at, places);
            if (places[3] >= end) break;
            for (unsigned k = 0; k < 4; k++) out->places[i + k] = (uint16_t)places[k];
        }
        for (; i < coded && at + runs[i] < end; i++) {
            out->places[i] = (uint16_t)(at + runs[i]);
            at += runs[i] + 1;
        }
    }
    out->starts[rows] = i;
}

/* The values of the coded weights. */
static void list_values(const work *w, const bsx_lane *l) {
    const bsx_job *j = &w->job;
    uint8_t *const out = (uint8_t *)w->lists.values;
    if (j->setup.form == BSX_AS_LEVELS) {
        j->kernels->convert(out, l->elements, l->coded, &j->conversion);
    } else {
        const bsx_elements from = bsx_lane_elements(j, l->elements);
        bsx_gather(out, l->coded, &from);
    }
}

/* Every column of a row is a place. */
static void list_all(const lists *out, size_t cols) {
    for (size_t i = 0; i < cols; i++) out->places[i] = (uint16_t)i;
}

/* ---- one block ---- */

/* A block as a part of the matrix: some whole rows, or a piece of one. */
typedef struct piece {
    uint64_t row, col;
    size_t rows, cols;
} piece;

static piece piece_of(const bsx_head *head, const bsx_block *block) {
    const bool whole = head->block_cols == head->cols;
    piece p;
    p.row = block->first_weight / head->cols;
    p.col = block->first_weight % head->cols;
    p.cols = whole ? (size_t)head->cols : block->weights;
    p.rows = whole ? block->weights / p.cols : 1;
    return p;
}

/* The value of coded weight i. */
ALWAYS_INLINE float value_at(const bsx_elements *e, size_t i, const bool wide) {
    const size_t element = wide ? ((const uint16_t *)e->elements)[i] : ((const uint8_t *)e->elements)[i];
    return ((const float *)e->values)[element];
}

/* y[row] for one column of x, straight from the streams' elements, which are met only once: the sums of the piece's rows. */
ALWAYS_INLINE void sum_runs(const work *w, const bsx_lane *l, const piece *p, const bool wide) {
    const bsx_elements from = bsx_lane_elements(&w->job, l->elements);
    const uint16_t *const runs = l->runs;
    const float *const x = w->x + p->col;
    const int64_t end = (int64_t)p->cols;
    const uint32_t coded = l->coded;
    uint32_t i = 0;
    int64_t at = 0, places[4];
    for (size_t row = 0; row < p->rows; row++, at -= end) {
        float sums[4] = {0, 0, 0, 0};
        for (; i + 4 <= coded; i += 4, at = places[3] + 1) {
            next_places(runs + i, at, places);
            if (places[3] >= end) break;
            for (unsigned k = 0; k < 4; k++) sums[k] += value_at(&from, i + k, wide) * x[places[k]];
        }
        for (; i < coded && at + runs[i] < end; i++) {
            sums[0] += value_at(&from, i, wide) * x[at + runs[i]];
            at += runs[i] + 1;
        }
        w->y[p->row + row] = (sums[0] + sums[1]) + (sums[2] + sums[3]) + (p->col ? w->y[p->row + row] : 0.0F);
    }
}

static void multiply_runs(const work *w, const bsx_lane *l, const piece *p) {
    if (w->job.setup.form == BSX_AS_SYMBOLS) sum_runs(w, l, p, true);
    else sum_runs(w, l, p, false);
}

/* The same from a block's decoded weights. */
static void multiply_weights(const work *w, const piece *p) {
    const float *const x = w->x + p->col;
    for (size_t r = 0; r < p->rows; r++) {
        const float sum = w->kernels->dot_dense(w->lists.values + r * p->cols, p->cols, x);
        w->y[p->row + r] = sum + (p->col ? w->y[p->row + r] : 0.0F);
    }
}

/* The sums of a piece's rows and of one panel. */
static void sum_rows(const work *w, const piece *p, const panel *of, const float *x) {
    const lists *l = &w->lists;
    size_t r = 0;
    for (; w->sparse && r < p->rows; r++) {
        const size_t start = l->starts[r];
        w->kernels->row_sparse[of->kind](l->sums + r * of->width, l->values + start, l->places + start,
                                         l->starts[r + 1] - start, x);
    }
    for (size_t row = p->cols; r < p->rows; r += row ? BSX_DENSE_ROWS : 1) {
        if (p->rows - r < BSX_DENSE_ROWS) row = 0; /* the last ones one by one, each as BSX_DENSE_ROWS equal rows */
        w->kernels->rows_dense[of->kind](l->sums + r * of->width, l->values + r * p->cols, row, p->cols, x);
    }
}

static void multiply_transposed(const work *w, const piece *p) {
    const bsx_head *head = w->job.head;
    for (panel of = no_panel; next_panel(&of, w->plan->n);) {
        const float *x = w->panels + of.offset * head->cols + p->col * of.width;
        sum_rows(w, p, &of, x);
        write_sums(w->y, &of, w->lists.sums, p->rows, (size_t)head->rows, (size_t)p->row, p->col != 0);
    }
}

/* Rows of the matrix are units of x: each adds to all of the part's sums. */
static void multiply_plain(const work *w, const piece *p) {
    const bsx_head *head = w->job.head;
    const lists *l = &w->lists;
    for (size_t r = 0; r < p->rows; r++) {
        const size_t start = w->sparse ? l->starts[r] : r * p->cols;
        const size_t count = w->sparse ? l->starts[r + 1] - start : p->cols;
        const float *values = l->values + start;
        const uint16_t *places = l->places + (w->sparse ? start : 0);
        if (w->plan->n == 1) {
            const float x = w->x[p->row + r];
            float *out = w->spread + p->col;
            for (size_t i = 0; i < count; i++) out[places[i]] += values[i] * x;
            continue;
        }
        for (panel of = no_panel; next_panel(&of, w->plan->n);) {
            const float *x = w->panels + of.offset * head->rows + (p->row + r) * of.width;
            float *out = w->spread + of.offset * head->cols + p->col * of.width;
            w->kernels->spread[of.kind](out, values, places, count, x);
        }
    }
}

/* False: the block's streams do not fit together. */
static bool multiply_block(const work *w, const bsx_lane *l) {
    const piece p = piece_of(w->job.head, &l->block);
    const bool column = w->plan->transposed && w->plan->n == 1;
    if (w->sparse) {
        if (span_of(l) > l->block.weights) return false;
        if (!column) list_values(w, l);
        if (!column) list_places(l, p.rows, p.cols, &w->lists);
    } else {
        if (!bsx_write_block(&w->job, l, (uint8_t *)w->lists.values)) return false;
        if (!w->plan->transposed) list_all(&w->lists, p.cols);
    }
    if (!w->plan->transposed) multiply_plain(w, &p);
    else if (!column) multiply_transposed(w, &p);
    else if (w->sparse) multiply_runs(w, l, &p);
    else multiply_weights(w, &p);
    return true;
}

/* ---- the three phases ---- */

static uint64_t units_in(const bsx_head *head, bool transposed) { return transposed ? head->cols : head->rows; }
static uint64_t units_out(const bsx_head *head, bool transposed) { return transposed ? head->rows : head->cols; }

/* Floats of the panels of x, and of those that each part adds up in; y itself does for one column. */
static uint64_t panel_floats(const bsx_head *head, const bsx_product *plan) {
    return plan->n == 1 ? 0 : add_product(padded(plan->n), units_in(head, plan->transposed), 0);
}

static uint64_t spread_floats(const bsx_head *head, const bsx_product *plan) {
    if (plan->transposed) return 0;
    return add_product(plan->n == 1 ? 1 : padded(plan->n), head->cols, 0);
}

/* Is it a matrix as bsx_product_plan demands it? */
static bool matrix_valid(const bsx_matrix *m) {
    if (m == NULL || m->blob == NULL || m->head == NULL || m->workspace == NULL) return false;
    if (m->size != m->head->head_bytes + m->head->payload_bytes || m->workspace_bytes < m->head->workspace_bytes) return false;
    return m->head->layout != BSX_RAW && bsx_workspace_parts(m->head, m->workspace).setup->out_type == BSX_FLOAT32;
}

/* Blocks of a part: whole rows, and enough parts for all threads. Parts that have sums of their own are not more than
 * threads. */
static uint64_t part_blocks(const bsx_head *head, bool transposed, unsigned threads) {
    const uint64_t in_row = (head->cols + head->block_cols - 1) / head->block_cols;
    const bool few = !transposed || threads == 1;
    const uint64_t wanted = few ? (head->blocks + threads - 1) / threads : PART_BLOCKS;
    return (wanted + in_row - 1) / in_row * in_row;
}

bsx_status bsx_product_plan(const bsx_matrix *matrix, bool transposed, uint64_t n, unsigned threads, bsx_product *plan) {
    if (!matrix_valid(matrix) || n == 0 || threads == 0 || plan == NULL) return BSX_BAD_ARGUMENT;
    const bsx_head *head = matrix->head;
    const uint64_t x = add_product(n, head->cols, 0), y = add_product(n, head->rows, 0); /* or the other way round */
    if (x > SIZE_MAX / sizeof(float) || y > SIZE_MAX / sizeof(float)) return BSX_BAD_ARGUMENT;
    bsx_product p = {n, 0, part_blocks(head, transposed, threads), 0, 0, transposed};
    p.parts = (head->blocks + p.blocks - 1) / p.blocks;
    const uint64_t floats = add_product(p.parts, spread_floats(head, &p), panel_floats(head, &p));
    p.shared_bytes = add_product(floats, sizeof(float), BSX_ALIGNMENT);
    p.scratch_bytes = place_lists(head, NULL, NULL);
    if (p.shared_bytes >= SIZE_MAX || p.scratch_bytes >= SIZE_MAX) return BSX_BAD_ARGUMENT; /* UINT64_MAX: too large */
    *plan = p;
    return BSX_OK;
}

bsx_status bsx_product_begin(const bsx_matrix *matrix, const bsx_product *plan, const float *x, size_t x_count,
                             void *shared, size_t shared_bytes) {
    if (!matrix_valid(matrix) || plan == NULL || x == NULL || shared == NULL || shared_bytes < plan->shared_bytes ||
        x_count != plan->n * units_in(matrix->head, plan->transposed)) {
        return BSX_BAD_ARGUMENT;
    }
    const size_t units = (size_t)units_in(matrix->head, plan->transposed);
    float *panels = bsx_align(shared);
    if (plan->n > 1) {
        for (panel p = no_panel; next_panel(&p, plan->n);) fill_panel(panels + p.offset * units, &p, x, units);
    }
    return BSX_OK;
}

/* The part's own sums, as zeros. */
static float *clear_spread(const bsx_head *head, const bsx_product *plan, uint64_t part, void *shared) {
    const size_t floats = (size_t)spread_floats(head, plan);
    if (floats == 0) return NULL;
    float *spread = (float *)bsx_align(shared) + panel_floats(head, plan) + part * floats;
    memset(spread, 0, floats * sizeof(float));
    return spread;
}

bsx_status bsx_product_part(const bsx_matrix *matrix, const bsx_product *plan, uint64_t part, const float *x, float *y,
                            size_t y_count, void *shared, size_t shared_bytes, void *scratch, size_t scratch_bytes,
                            uint64_t *bad_block) {
    if (!matrix_valid(matrix) || plan == NULL || part >= plan->parts || x == NULL || y == NULL || shared == NULL ||
        shared_bytes < plan->shared_bytes || scratch == NULL || scratch_bytes < plan->scratch_bytes ||
        y_count != plan->n * units_out(matrix->head, plan->transposed)) {
        return BSX_BAD_ARGUMENT;
    }
    const bsx_head *head = matrix->head;
    work w;
    w.job = bsx_job_of(matrix->blob, head, matrix->workspace, 0, scratch);
    w.kernels = bsx_panel_kernels_of(w.job.setup.simd);
    w.plan = plan;
    w.x = x;
    w.panels = bsx_align(shared);
    w.y = y;
    w.spread = clear_spread(head, plan, part, shared);
    w.sparse = head->layout == BSX_RL && *(const float *)w.job.prepared.values == 0.0F;
    place_lists(head, scratch, &w.lists);
    const uint64_t first = part * plan->blocks;
    const uint64_t end = head->blocks - first < plan->blocks ? head->blocks : first + plan->blocks;
    for (uint64_t i = first; i < end; i += BSX_GROUP) {
        bsx_lane lanes[BSX_GROUP];
        const unsigned group = end - i < BSX_GROUP ? (unsigned)(end - i) : BSX_GROUP;
        bsx_read_group(&w.job, i, group, lanes);
        for (unsigned k = 0; k < group; k++) {
            if (lanes[k].status == BSX_OK && !multiply_block(&w, &lanes[k])) lanes[k].status = BSX_BAD_STREAM;
            if (lanes[k].status == BSX_OK) continue;
            if (bad_block) *bad_block = i + k;
            return lanes[k].status;
        }
    }
    return BSX_OK;
}

bsx_status bsx_product_end(const bsx_matrix *matrix, const bsx_product *plan, float *y, size_t y_count,
                           const void *shared, size_t shared_bytes) {
    if (!matrix_valid(matrix) || plan == NULL || y == NULL || shared == NULL || shared_bytes < plan->shared_bytes ||
        y_count != plan->n * units_out(matrix->head, plan->transposed)) {
        return BSX_BAD_ARGUMENT;
    }
    if (plan->transposed) return BSX_OK;
    const bsx_head *head = matrix->head;
    const size_t cols = (size_t)head->cols, floats = (size_t)spread_floats(head, plan);
    const float *spread = (const float *)bsx_align(shared) + panel_floats(head, plan);
    for (uint64_t part = 0; part < plan->parts; part++, spread += floats) {
        if (plan->n == 1) {
            for (size_t i = 0; i < cols; i++) y[i] = spread[i] + (part ? y[i] : 0.0F);
            continue;
        }
        for (panel p = no_panel; next_panel(&p, plan->n);) {
            write_sums(y, &p, spread + p.offset * cols, cols, cols, 0, part > 0);
        }
    }
    return BSX_OK;
}

/* ---- rows by their numbers ---- */

uint64_t bsx_gather_scratch_bytes(const bsx_matrix *matrix) {
    return matrix_valid(matrix) ? place_lists(matrix->head, NULL, NULL) : 0;
}

/* Decode the blocks of one row, and write it and all later ones of the same block. */
static bsx_status gather_block(const bsx_job *job, uint64_t block, const uint64_t *rows, size_t count, size_t first,
                               float *values, float *out, uint64_t *bad_block) {
    const bsx_head *head = job->head;
    const uint64_t in_row = (head->cols + head->block_cols - 1) / head->block_cols;
    for (uint64_t i = block; i < block + in_row; i++) {
        bsx_lane lane;
        bsx_read_group(job, i, 1, &lane);
        if (lane.status == BSX_OK && !bsx_write_block(job, &lane, (uint8_t *)values)) lane.status = BSX_BAD_STREAM;
        if (lane.status != BSX_OK) {
            if (bad_block) *bad_block = i;
            return lane.status;
        }
        const piece p = piece_of(head, &lane.block);
        for (size_t k = first; k < count; k++) {
            if (rows[k] < p.row || rows[k] - p.row >= p.rows) continue;
            memcpy(out + k * head->cols + p.col, values + (rows[k] - p.row) * p.cols, p.cols * sizeof(float));
        }
    }
    return BSX_OK;
}

bsx_status bsx_gather_rows(const bsx_matrix *matrix, const uint64_t *rows, size_t count, float *out, size_t out_count,
                           void *scratch, size_t scratch_bytes, uint64_t *bad_block) {
    if (!matrix_valid(matrix) || scratch == NULL || scratch_bytes < bsx_gather_scratch_bytes(matrix)) return BSX_BAD_ARGUMENT;
    if (count == 0) return out_count == 0 ? BSX_OK : BSX_BAD_ARGUMENT;
    const bsx_head *head = matrix->head;
    if (rows == NULL || out == NULL || out_count / count != head->cols || out_count % count != 0) return BSX_BAD_ARGUMENT;
    for (size_t i = 0; i < count; i++) {
        if (rows[i] >= head->rows) return BSX_BAD_ARGUMENT;
    }
    const bsx_job job = bsx_job_of(matrix->blob, head, matrix->workspace, 0, scratch);
    const uint64_t in_row = (head->cols + head->block_cols - 1) / head->block_cols;
    lists l;
    place_lists(head, scratch, &l);
    for (size_t i = 0; i < count; i++) {
        const uint64_t band = rows[i] / head->block_rows;
        bool done = false;
        for (size_t k = 0; k < i && !done; k++) done = rows[k] / head->block_rows == band;
        if (done) continue;
        const bsx_status status = gather_block(&job, band * in_row, rows, count, i, l.values, out, bad_block);
        if (status != BSX_OK) return status;
    }
    return BSX_OK;
}
