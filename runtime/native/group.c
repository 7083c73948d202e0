/* group.c - from blocks to the elements of their streams (section 6). */
#include "group.h"

#include <string.h>

#include "crc32c.h"

/* One buffer per lane and stream, each for a whole block and what is stored past its end; and one for a block's weights,
 * or its symbols. */
uint64_t bsx_scratch_bytes(const bsx_head *head) {
    const uint64_t weights = (uint64_t)head->block_rows * head->block_cols;
    const uint64_t streams = head->layout == BSX_RL ? 2 : head->layout == BSX_RAW ? 0 : 1;
    const uint64_t lanes = head->blocks < BSX_GROUP ? head->blocks : BSX_GROUP;
    const uint64_t bitmap = head->layout == BSX_BM ? (weights + 7) / 8 + 1 : 0;
    const uint64_t stream = (weights + 1) * sizeof(uint16_t) + BSX_STREAM_SLOP + bitmap;
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
static void open_lane(const bsx_job *j, uint64_t i, bsx_lane *l) {
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

static void check_crcs(const bsx_job *j, bsx_lane *lanes, unsigned count) {
    const uint8_t *data[BSX_GROUP] = {NULL};
    size_t sizes[BSX_GROUP] = {0};
    uint32_t crcs[BSX_GROUP];
    for (unsigned i = 0; i < count; i++) {
        data[i] = lanes[i].data;
        sizes[i] = (size_t)bsx_block_bytes(&lanes[i].block);
    }
    bsx_crc32c_many(data, sizes, crcs, count, j->setup.crc32c);
    for (unsigned i = 0; i < count; i++) {
        if (lanes[i].status == BSX_OK && crcs[i] != lanes[i].block.crc) lanes[i].status = BSX_BLOCK_CRC;
    }
}

/* Decode the group's level streams, or run streams. */
static void read_streams(const bsx_job *j, bsx_lane *lanes, unsigned count, bool runs) {
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
static bool partner_is_1(const bsx_job *j, const bsx_lane *l) {
    if (!j->head->pairs || l->coded % 2 == 0) return true;
    if (j->setup.form == BSX_AS_LEVELS) return ((const int8_t *)l->elements)[l->coded] == j->prepared.codebook[1];
    return ((const uint16_t *)l->elements)[l->coded] == 1;
}

/* Give the lanes' streams their buffers; in BM, count what they hold. */
static void place_lanes(const bsx_job *j, bsx_lane *lanes, unsigned count) {
    const unsigned width = j->setup.form == BSX_AS_LEVELS ? sizeof(int8_t) : sizeof(uint16_t);
    uint8_t *free = j->scratch;
    for (unsigned i = 0; i < count; i++) {
        bsx_lane *l = &lanes[i];
        if (l->block.bitmap_bytes) memcpy(free, l->data, l->block.bitmap_bytes);
        l->bitmap = free;
        free += l->block.bitmap_bytes + l->block.bitmap_bytes % 2;
        const bool good = j->head->layout != BSX_BM || count_bitmap(l->bitmap, &l->block, &l->coded);
        if (!good && l->status == BSX_OK) l->status = BSX_BAD_STREAM;
        l->elements = free;
        free += ((size_t)l->coded + l->coded % 2) * width + BSX_STREAM_SLOP;
        free += (uintptr_t)free % 2;
        l->runs = (uint16_t *)(void *)free;
        if (j->head->layout == BSX_RL) free += (size_t)l->coded * sizeof(uint16_t) + BSX_STREAM_SLOP;
    }
}

bsx_elements bsx_lane_elements(const bsx_job *j, const void *elements) {
    const bsx_elements all = {elements, j->prepared.values, j->setup.item_bytes, j->setup.form == BSX_AS_SYMBOLS};
    return all;
}

bool bsx_job_valid(const void *blob, size_t size, const bsx_head *head, const void *workspace, size_t workspace_bytes,
                   uint64_t first_block, uint64_t count, const void *scratch, size_t scratch_bytes) {
    return blob != NULL && head != NULL && workspace != NULL && scratch != NULL &&
           size == head->head_bytes + head->payload_bytes && workspace_bytes >= head->workspace_bytes &&
           scratch_bytes >= head->scratch_bytes && count <= head->blocks && first_block <= head->blocks - count;
}

bsx_job bsx_job_of(const void *blob, const bsx_head *head, const void *workspace, unsigned flags, void *scratch) {
    bsx_job j;
    j.blob = blob;
    j.payload = j.blob + head->head_bytes;
    j.head = head;
    j.prepared = bsx_workspace_parts(head, workspace);
    j.setup = *j.prepared.setup;
    j.kernels = bsx_kernels_of(j.setup.simd);
    j.conversion = (bsx_conversion){j.setup.out_type, j.setup.item_bytes, head->step, j.prepared.values,
                                    (flags & BSX_AROUND_CACHE) != 0 && j.kernels->copy_around != NULL};
    j.staging = bsx_align(scratch);
    j.scratch = j.staging + ((size_t)head->block_rows * head->block_cols + 8) * sizeof(uint64_t) + BSX_STREAM_SLOP;
    return j;
}

void bsx_read_group(const bsx_job *j, uint64_t first_block, unsigned count, bsx_lane *lanes) {
    for (unsigned i = 0; i < count; i++) open_lane(j, first_block + i, &lanes[i]);
    check_crcs(j, lanes, count);
    if (j->head->layout == BSX_RAW) return;
    place_lanes(j, lanes, count);
    read_streams(j, lanes, count, false);
    if (j->head->layout == BSX_RL) read_streams(j, lanes, count, true);
    for (unsigned i = 0; i < count; i++) {
        if (lanes[i].status == BSX_OK && !partner_is_1(j, &lanes[i])) lanes[i].status = BSX_BAD_STREAM;
    }
}
