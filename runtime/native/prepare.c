/* prepare.c - what is computed once per blob: tables and offsets, laid out in the caller's workspace. */
#include "blob.h"

#define ALIGNED(bytes) (((uint64_t)(bytes) + BSX_ALIGNMENT - 1) / BSX_ALIGNMENT * BSX_ALIGNMENT)

/* Where each part of the workspace starts; `end` is the length of all. */
typedef struct plan {
    uint64_t levels, runs, codebook, values, offsets, end;
} plan;

static plan plan_of(const bsx_head *head) {
    const uint64_t level_table = head->layout == BSX_RAW ? 0 : sizeof(bsx_table);
    const uint64_t run_table = head->layout == BSX_RL ? sizeof(bsx_table) : 0;
    plan p;
    p.levels = 0;
    p.runs = p.levels + ALIGNED(level_table);
    p.codebook = p.runs + ALIGNED(run_table);
    p.values = p.codebook + ALIGNED((uint64_t)head->symbols * sizeof(int32_t));
    p.offsets = p.values + ALIGNED((uint64_t)head->symbols * head->item_bytes);
    p.end = p.offsets + ALIGNED(head->blocks * sizeof(uint64_t));
    return p;
}

void *bsx_align(const void *buffer) {
    const uintptr_t address = (uintptr_t)buffer;
    return (void *)((address + BSX_ALIGNMENT - 1) / BSX_ALIGNMENT * BSX_ALIGNMENT);
}

uint64_t bsx_workspace_bytes(const bsx_head *head) { return plan_of(head).end + BSX_ALIGNMENT; }

bsx_workspace bsx_workspace_parts(const bsx_head *head, const void *workspace) {
    const plan p = plan_of(head);
    unsigned char *start = bsx_align(workspace);
    bsx_workspace parts;
    parts.levels = (bsx_table *)(void *)(start + p.levels);
    parts.runs = (bsx_table *)(void *)(start + p.runs);
    parts.codebook = (int32_t *)(void *)(start + p.codebook);
    parts.values = start + p.values;
    parts.offsets = (uint64_t *)(void *)(start + p.offsets);
    return parts;
}

/* One buffer per lane and stream, each for a whole block and what is stored past its end. */
uint64_t bsx_scratch_bytes(const bsx_head *head) {
    const uint64_t streams = head->layout == BSX_RL ? 2 : head->layout == BSX_EG ? 1 : 0;
    const uint64_t values = (uint64_t)head->block_rows * head->block_cols + BSX_STREAM_SLOP;
    return streams * BSX_LANES * values * sizeof(uint16_t) + BSX_ALIGNMENT;
}

bsx_status bsx_prepare(const void *blob, size_t size, const bsx_head *head, void *workspace, size_t workspace_bytes) {
    if (blob == NULL || head == NULL || workspace == NULL || size != head->head_bytes + head->payload_bytes ||
        workspace_bytes < head->workspace_bytes) {
        return BSX_BAD_ARGUMENT;
    }
    const bsx_workspace parts = bsx_workspace_parts(head, workspace);
    if (head->layout != BSX_RAW) {
        if (!bsx_read_codebook(blob, head, parts.codebook)) return BSX_BAD_CODEBOOK;
        bsx_fill_values(parts.codebook, head->symbols, head->step, head->dtype, parts.values);
    }
    if (head->layout == BSX_EG) bsx_build_table(parts.levels, head->level_code, head->symbols);
    if (head->layout == BSX_RL) { /* the level stream holds symbols minus 1 */
        bsx_build_table(parts.levels, head->level_code, head->symbols - 1);
        bsx_build_table(parts.runs, head->run_code, head->block_rows * head->block_cols);
    }
    uint64_t offset = 0;
    for (uint64_t i = 0; i < head->blocks; i++) {
        bsx_block block;
        if (!bsx_read_block(blob, head, i, &block)) return BSX_BAD_INDEX;
        parts.offsets[i] = offset;
        offset += (uint64_t)block.run_bytes + block.level_bytes;
    }
    return BSX_OK;
}
