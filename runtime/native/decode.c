/* decode.c - from blocks to weights or levels (section 6). */
#include <string.h>

#include "blob.h"
#include "crc32c.h"
#include "kernels.h"

/* One call of bsx_decode. */
typedef struct job {
    const uint8_t *blob, *payload;
    const bsx_head *head;
    bsx_workspace prepared;
    bsx_setup setup;
    const bsx_kernels *kernels;
    bsx_conversion conversion;
    uint8_t *out;
    uint8_t *scratch, *staging; /* the streams' elements; a block before it is written */
} job;

/* A block of the group that is decoded side by side. */
typedef struct lane {
    bsx_block block;
    const uint8_t *data;
    bsx_status status;
    uint32_t coded; /* symbols in the level stream */
    void *elements; /* BSX_AS_LEVELS: int8_t, BSX_AS_SYMBOLS: uint16_t */
    uint16_t *runs;
} lane;

/* One buffer per lane and stream, each for a whole block and what is stored past its end; and one for a block's weights,
 * or its symbols. */
uint64_t bsx_scratch_bytes(const bsx_head *head) {
    const uint64_t weights = (uint64_t)head->block_rows * head->block_cols;
    const uint64_t streams = head->layout == BSX_RL ? 2 : head->layout == BSX_RAW ? 0 : 1;
    const uint64_t lanes = head->blocks < BSX_GROUP ? head->blocks : BSX_GROUP;
    const uint64_t stream = (weights + 1) * sizeof(uint16_t) + BSX_STREAM_SLOP;
    const uint64_t staging = (weights + 8) * sizeof(uint64_t) + BSX_STREAM_SLOP;
    return streams * lanes * stream + (streams ? staging : 0) + BSX_ALIGNMENT;
}

/* The one bits of a bitmap. False: there are some after the block's last weight. */
static bool count_bitmap(const uint8_t *bitmap, const bsx_block *block, uint32_t *ones) {
    uint32_t count = 0, i = 0;
    for (; i + 8 <= block->bitmap_bytes; i += 8) {
        uint64_t x = bsx_load_le64(bitmap + i);
        x -= x >> 1 & UINT64_C(0x5555555555555555);
        x = (x & UINT64_C(0x3333333333333333)) + (x >> 2 & UINT64_C(0x3333333333333333));
        x = (x + (x >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F);
        count += (uint32_t)(x * UINT64_C(0x0101010101010101) >> 56);
    }
    for (; i < block->bitmap_bytes; i++) count += bsx_ones[bitmap[i]];
    *ones = count;
    return block->bitmap_bytes == 0 || block->weights % 8 == 0 || bitmap[block->bitmap_bytes - 1] >> block->weights % 8 == 0;
}

/* Read the index entry. The entry is checked again, since nothing stops another process from changing a mapped file after
 * bsx_parse. */
static void open_lane(const job *j, uint64_t i, lane *l) {
    const bsx_head *head = j->head;
    const uint64_t offset = j->prepared.offsets[i];
    l->status = BSX_OK;
    l->data = j->payload;
    if (!bsx_read_block(j->blob, head, i, &l->block) || offset > head->payload_bytes ||
        bsx_block_bytes(&l->block) > head->payload_bytes - offset) {
        l->status = BSX_BAD_INDEX;
        l->block.run_bytes = l->block.level_bytes = l->block.bitmap_bytes = l->block.coded = 0;
    } else {
        l->data += offset;
    }
    l->coded = l->block.coded;
}

static void check_crcs(lane *lanes, unsigned count) {
    const uint8_t *data[BSX_GROUP];
    size_t sizes[BSX_GROUP];
    uint32_t crcs[BSX_GROUP];
    for (unsigned i = 0; i < count; i++) {
        data[i] = lanes[i].data;
        sizes[i] = (size_t)bsx_block_bytes(&lanes[i].block);
    }
    bsx_crc32c_many(data, sizes, crcs, count);
    for (unsigned i = 0; i < count; i++) {
        if (lanes[i].status == BSX_OK && crcs[i] != lanes[i].block.crc) lanes[i].status = BSX_BLOCK_CRC;
    }
}

/* Decode the group's level streams, or run streams. */
static void read_group(const job *j, lane *lanes, unsigned count, bool runs) {
    bsx_stream streams[BSX_GROUP];
    for (unsigned i = 0; i < count; i++) {
        const bsx_block *block = &lanes[i].block;
        streams[i].data = lanes[i].data + block->bitmap_bytes + (runs ? 0 : block->run_bytes);
        streams[i].size = runs ? block->run_bytes : block->level_bytes;
        streams[i].count = runs ? lanes[i].coded : bsx_codewords(j->head, lanes[i].coded);
        streams[i].elements = runs ? lanes[i].runs : lanes[i].elements;
    }
    if (runs) bsx_read_streams(streams, count, j->prepared.runs, NULL);
    else bsx_read_streams(streams, count, j->prepared.levels, j->prepared.map);
    for (unsigned i = 0; i < count; i++) {
        if (!streams[i].ok && lanes[i].status == BSX_OK) lanes[i].status = BSX_BAD_STREAM;
    }
}

/* Is the partner of an odd last symbol symbol 1? */
static bool partner_is_1(const job *j, const lane *l) {
    if (!j->head->pairs || l->coded % 2 == 0) return true;
    if (j->setup.form == BSX_AS_LEVELS) return ((const int8_t *)l->elements)[l->coded] == j->prepared.codebook[1];
    return ((const uint16_t *)l->elements)[l->coded] == 1;
}

static bsx_elements elements_of(const job *j, const void *elements) {
    const bsx_elements all = {elements, j->prepared.values, j->setup.item_bytes, j->setup.form == BSX_AS_SYMBOLS};
    return all;
}

/* Write a block of RL. False: its runs are longer than it is. */
static bool write_runs(const job *j, const lane *l, uint8_t *out) {
    const size_t weights = l->block.weights;
    const bool around = j->conversion.around;
    /* Around the cache levels are best converted, since then what is staged is short. */
    const bool convert = around && j->setup.form == BSX_AS_LEVELS && j->setup.out_type == BSX_FLOAT32;
    bsx_elements from = elements_of(j, l->elements);
    if (convert) from.item_bytes = sizeof(int8_t);
    if (!bsx_scatter(around ? j->staging : out, weights, l->runs, l->coded, &from)) return false;
    if (convert) j->kernels->convert(out, (const int8_t *)j->staging, weights, &j->conversion);
    else if (around) j->kernels->copy_around(out, j->staging, weights * j->setup.item_bytes);
    return true;
}

/* Write a block of BM whose elements are levels: first the whole bytes of the bitmap. */
static void write_bitmap(const job *j, const lane *l, uint8_t *out) {
    const bsx_kernels *k = j->kernels;
    const size_t bytes = l->block.weights / 8, rest = l->block.weights % 8;
    int8_t *const staged = (int8_t *)j->staging;
    if (j->setup.out_type == BSX_FLOAT32 && k->expand_float32 != NULL) {
        k->expand_float32(out, l->data, bytes, l->elements, &j->conversion);
    } else if (j->setup.item_bytes == 1) {
        k->expand_levels((int8_t *)out, l->data, bytes, l->elements);
    } else {
        k->expand_levels(staged, l->data, bytes, l->elements);
        k->convert(out, staged, 8 * bytes, &j->conversion);
    }
    if (rest == 0) return;
    const int8_t *last = (const int8_t *)l->elements + l->coded - bsx_ones[l->data[bytes]];
    k->expand_levels(staged, l->data + bytes, 1, last);
    k->convert(out + 8 * bytes * j->setup.item_bytes, staged, rest, &j->conversion);
}

/* Write a block of EG or BM whose elements are levels. */
static void write_levels(const job *j, const lane *l, uint8_t *out) {
    if (j->head->layout == BSX_BM) write_bitmap(j, l, out);
    else j->kernels->convert(out, l->elements, l->block.weights, &j->conversion);
}

/* Write a block of EG or BM whose elements are symbols. */
static void write_symbols(const job *j, const lane *l, uint8_t *out) {
    const size_t weights = l->block.weights;
    const bool around = j->conversion.around && j->head->layout == BSX_EG;
    bsx_elements from = elements_of(j, l->elements);
    if (j->head->layout == BSX_BM) {
        j->kernels->expand_symbols((uint16_t *)(void *)j->staging, l->data, l->block.bitmap_bytes, l->elements);
        from.elements = j->staging;
    }
    bsx_gather(around ? j->staging : out, weights, &from);
    if (around) j->kernels->copy_around(out, j->staging, weights * j->setup.item_bytes);
}

/* Give the lanes' streams their buffers; in BM, count what they hold. */
static void place_lanes(const job *j, lane *lanes, unsigned count) {
    const unsigned width = j->setup.form == BSX_AS_LEVELS ? sizeof(int8_t) : sizeof(uint16_t);
    uint8_t *free = j->scratch;
    for (unsigned i = 0; i < count; i++) {
        lane *l = &lanes[i];
        const bool good = j->head->layout != BSX_BM || count_bitmap(l->data, &l->block, &l->coded);
        if (!good && l->status == BSX_OK) l->status = BSX_BAD_STREAM;
        l->elements = free;
        free += ((size_t)l->coded + l->coded % 2) * width + BSX_STREAM_SLOP;
        free += (uintptr_t)free % 2;
        l->runs = (uint16_t *)(void *)free;
        if (j->head->layout == BSX_RL) free += (size_t)l->coded * sizeof(uint16_t) + BSX_STREAM_SLOP;
    }
}

/* False: its streams do not fit together. */
static bool write_block(const job *j, const lane *l, uint8_t *out) {
    if (j->head->layout == BSX_RAW) memcpy(out, l->data, l->block.level_bytes);
    else if (!partner_is_1(j, l)) return false;
    else if (j->head->layout == BSX_RL) return write_runs(j, l, out);
    else if (j->setup.form == BSX_AS_LEVELS) write_levels(j, l, out);
    else write_symbols(j, l, out);
    return true;
}

/* Decode up to BSX_GROUP blocks to j->out. Returns the first bad one's place in the group, or count. */
static unsigned decode_group(const job *j, uint64_t first_block, unsigned count, lane *lanes) {
    for (unsigned i = 0; i < count; i++) open_lane(j, first_block + i, &lanes[i]);
    check_crcs(lanes, count);
    if (j->head->layout != BSX_RAW) {
        place_lanes(j, lanes, count);
        read_group(j, lanes, count, false);
        if (j->head->layout == BSX_RL) read_group(j, lanes, count, true);
    }
    uint8_t *out = j->out;
    for (unsigned i = 0; i < count; i++) {
        lane *l = &lanes[i];
        if (l->status == BSX_OK && !write_block(j, l, out)) l->status = BSX_BAD_STREAM;
        if (l->status != BSX_OK) return i;
        out += (size_t)l->block.weights * j->setup.item_bytes;
    }
    return count;
}

/* Is the output exactly as long as the blocks' weights? */
static bool out_fits(const bsx_head *head, uint64_t first, uint64_t count, unsigned item_bytes, size_t out_bytes) {
    const bsx_grid grid = bsx_head_grid(head);
    const uint64_t end = first + count < head->blocks ? bsx_grid_first(&grid, first + count) : head->weights;
    return out_bytes == (end - bsx_grid_first(&grid, first)) * item_bytes;
}

static bool arguments_valid(const void *blob, size_t size, const bsx_head *head, const void *workspace,
                            size_t workspace_bytes, uint64_t first_block, uint64_t count, const void *scratch,
                            size_t scratch_bytes) {
    return blob != NULL && head != NULL && workspace != NULL && scratch != NULL &&
           size == head->head_bytes + head->payload_bytes && workspace_bytes >= head->workspace_bytes &&
           scratch_bytes >= head->scratch_bytes && count <= head->blocks && first_block <= head->blocks - count;
}

static job job_of(const void *blob, const bsx_head *head, const void *workspace, unsigned flags, void *out,
                  void *scratch) {
    job j;
    j.blob = blob;
    j.payload = j.blob + head->head_bytes;
    j.head = head;
    j.prepared = bsx_workspace_parts(head, workspace);
    j.setup = *j.prepared.setup;
    j.kernels = bsx_kernels_of(j.setup.simd);
    j.conversion = (bsx_conversion){j.setup.out_type, j.setup.item_bytes, head->step, j.prepared.values,
                                    (flags & BSX_AROUND_CACHE) != 0 && j.kernels->copy_around != NULL};
    j.out = out;
    j.staging = bsx_align(scratch);
    j.scratch = j.staging + ((size_t)head->block_rows * head->block_cols + 8) * sizeof(uint64_t) + BSX_STREAM_SLOP;
    return j;
}

bsx_status bsx_decode(const void *blob, size_t size, const bsx_head *head, const void *workspace,
                      size_t workspace_bytes, uint64_t first_block, uint64_t count, unsigned flags, void *out,
                      size_t out_bytes, void *scratch, size_t scratch_bytes, uint64_t *bad_block) {
    if (!arguments_valid(blob, size, head, workspace, workspace_bytes, first_block, count, scratch, scratch_bytes) ||
        out == NULL) {
        return BSX_BAD_ARGUMENT;
    }
    if (count == 0) return out_bytes == 0 ? BSX_OK : BSX_BAD_ARGUMENT;
    job j = job_of(blob, head, workspace, flags, out, scratch);
    if (!out_fits(head, first_block, count, j.setup.item_bytes, out_bytes)) return BSX_BAD_ARGUMENT;
    const uint64_t end = first_block + count;
    for (uint64_t i = first_block; i < end; i += BSX_GROUP) {
        lane lanes[BSX_GROUP];
        const unsigned group = end - i < BSX_GROUP ? (unsigned)(end - i) : BSX_GROUP;
        const unsigned good = decode_group(&j, i, group, lanes);
        if (good < group) {
            if (bad_block) *bad_block = i + good;
            return lanes[good].status;
        }
        for (unsigned k = 0; k < group; k++) j.out += (size_t)lanes[k].block.weights * j.setup.item_bytes;
    }
    return BSX_OK;
}
