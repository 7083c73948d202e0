/* decode.c - from blocks to weights or levels (section 6). */
#include <string.h>

#include "blob.h"
#include "crc32c.h"

#define ELEMENT uint16_t
#define NAME(x) x##_16
#include "element.h"
#undef ELEMENT
#undef NAME
#define ELEMENT uint32_t
#define NAME(x) x##_32
#include "element.h"
#undef ELEMENT
#undef NAME
#define ELEMENT uint64_t
#define NAME(x) x##_64
#include "element.h"
#undef ELEMENT
#undef NAME

/* One call of bsx_decode. */
typedef struct job {
    const uint8_t *blob, *payload;
    const bsx_head *head;
    bsx_workspace prepared;
    const void *values; /* what a symbol is decoded to, item_bytes each */
    unsigned item_bytes;
    unsigned char *out;
    uint16_t *scratch;
} job;

/* A block of the group that is decoded side by side. */
typedef struct lane {
    bsx_block block;
    const uint8_t *data;
    bsx_status status;
} lane;

/* Read the index entry, and check the block's bytes. The entry is checked again, since nothing stops another process
 * from changing a mapped file after bsx_parse. */
static void open_lane(const job *j, uint64_t i, lane *l) {
    const bsx_head *head = j->head;
    const uint64_t offset = j->prepared.offsets[i];
    l->status = BSX_OK;
    l->data = j->payload;
    if (!bsx_read_block(j->blob, head, i, &l->block) || offset > head->payload_bytes ||
        (uint64_t)l->block.run_bytes + l->block.level_bytes > head->payload_bytes - offset) {
        l->status = BSX_BAD_INDEX;
        l->block.run_bytes = l->block.level_bytes = l->block.coded = 0;
        return;
    }
    l->data += offset;
    if (bsx_crc32c(l->data, (size_t)l->block.run_bytes + l->block.level_bytes) != l->block.crc) {
        l->status = BSX_BLOCK_CRC;
    }
}

/* Decode the group's level streams, or run streams, into the scratch buffers from `first` on. */
static void read_group(const job *j, lane *lanes, unsigned count, bool runs, uint16_t *first, size_t stride) {
    bsx_stream streams[BSX_LANES];
    for (unsigned i = 0; i < count; i++) {
        const bsx_block *block = &lanes[i].block;
        streams[i].data = lanes[i].data + (runs ? 0 : block->run_bytes);
        streams[i].size = runs ? block->run_bytes : block->level_bytes;
        streams[i].count = block->coded;
        streams[i].values = first + i * stride;
    }
    bsx_read_streams(streams, count, runs ? j->prepared.runs : j->prepared.levels);
    for (unsigned i = 0; i < count; i++) {
        if (!streams[i].ok && lanes[i].status == BSX_OK) lanes[i].status = BSX_BAD_STREAM;
    }
}

static bool runs_fit(const uint16_t *runs, const bsx_block *block) {
    uint64_t sum = block->coded; /* 65536 runs below 65536 each: 32 bits would just do */
    for (uint32_t i = 0; i < block->coded; i++) sum += runs[i];
    return sum <= block->weights;
}

static void write_eg(const job *j, const lane *l, const uint16_t *symbols, unsigned char *out) {
    const size_t weights = l->block.weights;
    if (j->item_bytes == 2) gather_16(out, symbols, weights, j->values);
    if (j->item_bytes == 4) gather_32(out, symbols, weights, j->values);
    if (j->item_bytes == 8) gather_64(out, symbols, weights, j->values);
}

static void write_rl(const job *j, const lane *l, const uint16_t *runs, const uint16_t *symbols, unsigned char *out) {
    const size_t weights = l->block.weights;
    const size_t coded = l->block.coded;
    if (j->item_bytes == 2) scatter_16(out, weights, runs, symbols, coded, j->values);
    if (j->item_bytes == 4) scatter_32(out, weights, runs, symbols, coded, j->values);
    if (j->item_bytes == 8) scatter_64(out, weights, runs, symbols, coded, j->values);
}

/* Decode up to BSX_LANES blocks to j->out. Returns the first bad one's place in the group, or count. */
static unsigned decode_group(const job *j, uint64_t first_block, unsigned count, lane *lanes) {
    const size_t stride = (size_t)j->head->block_rows * j->head->block_cols + BSX_STREAM_SLOP;
    uint16_t *const level_scratch = j->scratch;
    uint16_t *const run_scratch = j->scratch + BSX_LANES * stride;
    for (unsigned i = 0; i < count; i++) open_lane(j, first_block + i, &lanes[i]);
    if (j->head->layout != BSX_RAW) read_group(j, lanes, count, false, level_scratch, stride);
    if (j->head->layout == BSX_RL) read_group(j, lanes, count, true, run_scratch, stride);
    unsigned char *out = j->out;
    for (unsigned i = 0; i < count; i++) {
        lane *l = &lanes[i];
        const uint16_t *symbols = level_scratch + i * stride;
        const uint16_t *runs = run_scratch + i * stride;
        const bool fits = j->head->layout != BSX_RL || l->status != BSX_OK || runs_fit(runs, &l->block);
        if (!fits) l->status = BSX_BAD_STREAM;
        if (l->status != BSX_OK) return i;
        if (j->head->layout == BSX_RAW) memcpy(out, l->data, l->block.level_bytes);
        if (j->head->layout == BSX_EG) write_eg(j, l, symbols, out);
        if (j->head->layout == BSX_RL) write_rl(j, l, runs, symbols, out);
        out += (size_t)l->block.weights * j->item_bytes;
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
                      size_t workspace_bytes, uint64_t first_block, uint64_t count, int out_type, void *out,
                      size_t out_bytes, void *scratch, size_t scratch_bytes, uint64_t *bad_block) {
    if (blob == NULL || head == NULL || workspace == NULL || out == NULL || scratch == NULL ||
        size != head->head_bytes + head->payload_bytes || workspace_bytes < head->workspace_bytes ||
        scratch_bytes < head->scratch_bytes || count > head->blocks || first_block > head->blocks - count) {
        return BSX_BAD_ARGUMENT;
    }
    if (count == 0) return out_bytes == 0 ? BSX_OK : BSX_BAD_ARGUMENT;
    const bool as_levels = out_type != head->dtype;
    if (as_levels && (out_type != BSX_INT32 || head->layout == BSX_RAW)) return BSX_BAD_ARGUMENT;
    job j;
    j.blob = blob;
    j.payload = j.blob + head->head_bytes;
    j.head = head;
    j.prepared = bsx_workspace_parts(head, workspace);
    j.values = as_levels ? j.prepared.codebook : j.prepared.values;
    j.item_bytes = as_levels ? sizeof(int32_t) : head->item_bytes;
    j.scratch = bsx_align(scratch);
    j.out = out;
    if (!out_fits(head, first_block, count, j.item_bytes, out_bytes)) return BSX_BAD_ARGUMENT;
    const uint64_t end = first_block + count;
    for (uint64_t i = first_block; i < end; i += BSX_LANES) {
        lane lanes[BSX_LANES];
        const unsigned group = end - i < BSX_LANES ? (unsigned)(end - i) : BSX_LANES;
        const unsigned good = decode_group(&j, i, group, lanes);
        if (good < group) {
            if (bad_block) *bad_block = i + good;
            return lanes[good].status;
        }
        for (unsigned k = 0; k < group; k++) j.out += (size_t)lanes[k].block.weights * j.item_bytes;
    }
    return BSX_OK;
}
