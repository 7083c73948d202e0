/* decode.c - from blocks to weights or levels (section 6). */
#include <string.h>

#include "group.h"

/* Write a block of RL. False: its runs are longer than it is. */
static bool write_runs(const bsx_job *j, const bsx_lane *l, uint8_t *out) {
    const size_t weights = l->block.weights;
    const bool around = j->conversion.around;
    /* Around the cache levels are best converted, since then what is staged is short. */
    const bool convert = around && j->setup.form == BSX_AS_LEVELS && j->setup.out_type == BSX_FLOAT32;
    bsx_elements from = bsx_lane_elements(j, l->elements);
    if (convert) from.item_bytes = sizeof(int8_t);
    if (!bsx_scatter(around ? j->staging : out, weights, l->runs, l->coded, &from)) return false;
    if (convert) j->kernels->convert(out, (const int8_t *)j->staging, weights, &j->conversion);
    else if (around) j->kernels->copy_around(out, j->staging, weights * j->setup.item_bytes);
    return true;
}

/* Write a block of BM whose elements are levels: first the whole bytes of the bitmap. */
static void write_bitmap(const bsx_job *j, const bsx_lane *l, uint8_t *out) {
    const bsx_kernels *k = j->kernels;
    const size_t bytes = l->block.weights / 8, rest = l->block.weights % 8;
    int8_t *const staged = (int8_t *)j->staging;
    if (j->setup.out_type == BSX_FLOAT32 && k->expand_float32 != NULL) {
        k->expand_float32(out, l->bitmap, bytes, l->elements, &j->conversion);
    } else if (j->setup.item_bytes == 1) {
        k->expand_levels((int8_t *)out, l->bitmap, bytes, l->elements);
    } else {
        k->expand_levels(staged, l->bitmap, bytes, l->elements);
        k->convert(out, staged, 8 * bytes, &j->conversion);
    }
    if (rest == 0) return;
    const int8_t *last = (const int8_t *)l->elements + l->coded - bsx_ones[l->bitmap[bytes]];
    k->expand_levels(staged, l->bitmap + bytes, 1, last);
    k->convert(out + 8 * bytes * j->setup.item_bytes, staged, rest, &j->conversion);
}

/* Write a block of EG or BM whose elements are levels. */
static void write_levels(const bsx_job *j, const bsx_lane *l, uint8_t *out) {
    if (j->head->layout == BSX_BM) write_bitmap(j, l, out);
    else j->kernels->convert(out, l->elements, l->block.weights, &j->conversion);
}

/* Write a block of EG or BM whose elements are symbols. */
static void write_symbols(const bsx_job *j, const bsx_lane *l, uint8_t *out) {
    const size_t weights = l->block.weights;
    const bool around = j->conversion.around && j->head->layout == BSX_EG;
    bsx_elements from = bsx_lane_elements(j, l->elements);
    if (j->head->layout == BSX_BM) {
        j->kernels->expand_symbols((uint16_t *)(void *)j->staging, l->bitmap, l->block.bitmap_bytes, l->elements);
        from.elements = j->staging;
    }
    bsx_gather(around ? j->staging : out, weights, &from);
    if (around) j->kernels->copy_around(out, j->staging, weights * j->setup.item_bytes);
}

/* False: its streams do not fit together. */
bool bsx_write_block(const bsx_job *j, const bsx_lane *l, uint8_t *out) {
    if (j->head->layout == BSX_RAW) memcpy(out, l->data, l->block.level_bytes);
    else if (j->head->layout == BSX_RL) return write_runs(j, l, out);
    else if (j->setup.form == BSX_AS_LEVELS) write_levels(j, l, out);
    else write_symbols(j, l, out);
    return true;
}

/* Decode up to BSX_GROUP blocks to *out, which moves past them. Returns the first bad one's place in the group, or count. */
static unsigned decode_group(const bsx_job *j, uint64_t first_block, unsigned count, bsx_lane *lanes, uint8_t **out) {
    bsx_read_group(j, first_block, count, lanes);
    for (unsigned i = 0; i < count; i++) {
        bsx_lane *l = &lanes[i];
        if (l->status == BSX_OK && !bsx_write_block(j, l, *out)) l->status = BSX_BAD_STREAM;
        if (l->status != BSX_OK) return i;
        *out += (size_t)l->block.weights * j->setup.item_bytes;
    }
    return count;
}

/* Is the output exactly as long as the blocks' weights? */
static bool out_fits(const bsx_head *head, uint64_t first, uint64_t count, unsigned item_bytes, size_t out_bytes) {
    const bsx_grid grid = bsx_head_grid(head);
    const uint64_t end = first + count < head->blocks ? bsx_grid_first(&grid, first + count) : head->weights;
    return out_bytes == (end - bsx_grid_first(&grid, first)) * item_bytes;
}

bsx_status bsx_decode(const void *blob, size_t size, const bsx_head *head, const void *workspace,
                      size_t workspace_bytes, uint64_t first_block, uint64_t count, unsigned flags, void *out,
                      size_t out_bytes, void *scratch, size_t scratch_bytes, uint64_t *bad_block) {
    if (!bsx_job_valid(blob, size, head, workspace, workspace_bytes, first_block, count, scratch, scratch_bytes) ||
        out == NULL) {
        return BSX_BAD_ARGUMENT;
    }
    if (count == 0) return out_bytes == 0 ? BSX_OK : BSX_BAD_ARGUMENT;
    const bsx_job j = bsx_job_of(blob, head, workspace, flags, scratch);
    uint8_t *to = out;
    if (!out_fits(head, first_block, count, j.setup.item_bytes, out_bytes)) return BSX_BAD_ARGUMENT;
    const uint64_t end = first_block + count;
    for (uint64_t i = first_block; i < end; i += BSX_GROUP) {
        bsx_lane lanes[BSX_GROUP];
        const unsigned group = end - i < BSX_GROUP ? (unsigned)(end - i) : BSX_GROUP;
        const unsigned good = decode_group(&j, i, group, lanes, &to);
        if (good < group) {
            if (bad_block) *bad_block = i + good;
            return lanes[good].status;
        }
    }
    return BSX_OK;
}
