/* prepare.c - what is computed once per blob: tables, values and offsets, laid out in the caller's workspace. */
#include "blob.h"
#include "crc32c.h"
#include "kernels.h"

#define ALIGNED(bytes) (((uint64_t)(bytes) + BSX_ALIGNMENT - 1) / BSX_ALIGNMENT * BSX_ALIGNMENT)
#define INT8_LEVELS 256U
#define MAX_ITEM_BYTES 8U

/* Where each part of the workspace starts; `end` is the length of all. */
typedef struct layout_plan {
    uint64_t levels, runs, map, values, codebook, offsets, end;
} layout_plan;

static uint64_t pair_count(const bsx_head *head) {
    return head->pairs ? (uint64_t)(head->symbols - 1) * (head->symbols - 1) : 0;
}

static layout_plan plan_of(const bsx_head *head) {
    const bool raw = head->layout == BSX_RAW;
    const uint64_t values = head->symbols > INT8_LEVELS ? head->symbols : INT8_LEVELS;
    layout_plan p;
    p.levels = ALIGNED(sizeof(bsx_setup));
    p.runs = p.levels + ALIGNED(raw ? 0 : sizeof(bsx_table));
    p.map = p.runs + ALIGNED(head->layout == BSX_RL ? sizeof(bsx_table) : 0);
    p.values = p.map + ALIGNED(sizeof(uint32_t) * (head->pairs ? pair_count(head) : head->symbols));
    p.codebook = p.values + ALIGNED(raw ? 0 : values * MAX_ITEM_BYTES);
    p.offsets = p.codebook + ALIGNED((uint64_t)head->symbols * sizeof(int32_t));
    p.end = p.offsets + ALIGNED(head->blocks * sizeof(uint64_t));
    return p;
}

void *bsx_align(const void *buffer) {
    const uintptr_t address = (uintptr_t)buffer;
    return (void *)((address + BSX_ALIGNMENT - 1) / BSX_ALIGNMENT * BSX_ALIGNMENT);
}

uint64_t bsx_workspace_bytes(const bsx_head *head) { return plan_of(head).end + BSX_ALIGNMENT; }

bsx_workspace bsx_workspace_parts(const bsx_head *head, const void *workspace) {
    const layout_plan p = plan_of(head);
    unsigned char *start = bsx_align(workspace);
    bsx_workspace parts;
    parts.setup = (bsx_setup *)(void *)start;
    parts.levels = (bsx_table *)(void *)(start + p.levels);
    parts.runs = (bsx_table *)(void *)(start + p.runs);
    parts.map = (uint32_t *)(void *)(start + p.map);
    parts.values = start + p.values;
    parts.codebook = (int32_t *)(void *)(start + p.codebook);
    parts.offsets = (uint64_t *)(void *)(start + p.offsets);
    return parts;
}

/* Can the level stream be decoded to int8_t levels? Pairs need to tell symbols apart at their end, so that there no level
 * may be in the codebook twice. */
static bsx_form form_of(const bsx_head *head, const int32_t *codebook) {
    if (head->layout != BSX_EG && codebook[0] != 0) return BSX_AS_SYMBOLS;
    if (!bsx_type_holds(BSX_INT8, head)) return BSX_AS_SYMBOLS;
    for (uint32_t i = 0; head->pairs && i < head->symbols; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (codebook[i] == codebook[j]) return BSX_AS_SYMBOLS;
        }
    }
    return BSX_AS_LEVELS;
}

/* What each rank stands for: two levels, or two symbols. */
static void fill_pairs(const bsx_head *head, const bsx_workspace *parts, const uint8_t *classes) {
    uint8_t first[BSX_MAX_PAIRED * BSX_MAX_PAIRED], second[BSX_MAX_PAIRED * BSX_MAX_PAIRED];
    bsx_rank_pairs(classes, head->symbols - 1, first, second);
    for (uint32_t rank = 0; rank < pair_count(head); rank++) {
        const uint16_t a = (uint16_t)(first[rank] + 1), b = (uint16_t)(second[rank] + 1);
        if (parts->setup->form == BSX_AS_LEVELS) {
            parts->map[rank] = (uint8_t)parts->codebook[a] | (uint32_t)(uint8_t)parts->codebook[b] << 8;
        } else {
            parts->map[rank] = a | (uint32_t)b << 16;
        }
    }
}

/* The table of the level stream. In RL and BM the stream holds symbols minus 1. */
static void prepare_levels(const bsx_head *head, const bsx_workspace *parts, const uint8_t *classes) {
    const bsx_code code = bsx_code_of(head->level_code);
    const uint32_t base = head->layout == BSX_EG ? 0 : 1;
    const bool as_levels = parts->setup->form == BSX_AS_LEVELS;
    const unsigned width = as_levels ? sizeof(int8_t) : sizeof(uint16_t);
    if (head->pairs) {
        fill_pairs(head, parts, classes);
        bsx_build_table(parts->levels, code, (uint32_t)pair_count(head), 0, 2 * width, parts->map);
        return;
    }
    for (uint32_t i = base; as_levels && i < head->symbols; i++) {
        parts->map[i - base] = (uint8_t)parts->codebook[i];
    }
    bsx_build_table(parts->levels, code, head->symbols - base, base, width, as_levels ? parts->map : NULL);
}

/* What is written for each symbol, or for each int8_t level. */
static void prepare_values(const bsx_head *head, const bsx_workspace *parts) {
    const bsx_setup *setup = parts->setup;
    int32_t levels[INT8_LEVELS];
    for (uint32_t i = 0; i < INT8_LEVELS; i++) levels[i] = (int8_t)i;
    if (setup->form == BSX_AS_LEVELS) bsx_fill_values(levels, INT8_LEVELS, head->step, setup->out_type, parts->values);
    else bsx_fill_values(parts->codebook, head->symbols, head->step, setup->out_type, parts->values);
}

/* The blocks' places. */
static bool read_index(const uint8_t *blob, const bsx_head *head, const bsx_workspace *parts) {
    uint64_t offset = 0;
    for (uint64_t i = 0; i < head->blocks; i++) {
        bsx_block block;
        if (!bsx_read_block(blob, head, i, &block)) return false;
        parts->offsets[i] = offset;
        offset += bsx_block_bytes(&block);
    }
    return true;
}

bsx_status bsx_prepare_with(const void *blob, size_t size, const bsx_head *head, int out_type, unsigned simd,
                            void *workspace, size_t workspace_bytes) {
    if (blob == NULL || head == NULL || workspace == NULL || size != head->head_bytes + head->payload_bytes ||
        workspace_bytes < head->workspace_bytes || simd >= bsx_simd_levels()) {
        return BSX_BAD_ARGUMENT;
    }
    const bool raw = head->layout == BSX_RAW;
    const bsx_workspace parts = bsx_workspace_parts(head, workspace);
    const unsigned item_bytes = raw ? (out_type == head->dtype ? head->item_bytes : 0) : bsx_type_bytes(out_type);
    if (item_bytes == 0) return BSX_BAD_ARGUMENT;
    *parts.setup = (bsx_setup){out_type, item_bytes, BSX_AS_SYMBOLS, simd, bsx_crc32c_instruction(), head->step};
    if (!raw) {
        uint8_t classes[BSX_MAX_PAIRED];
        if (!bsx_read_codebook(blob, head, parts.codebook, head->pairs ? classes : NULL)) return BSX_BAD_CODEBOOK;
        if (!bsx_type_holds(out_type, head)) return BSX_BAD_ARGUMENT;
        parts.setup->form = form_of(head, parts.codebook);
        prepare_levels(head, &parts, classes);
        prepare_values(head, &parts);
        parts.levels->bmi2 = bsx_kernels_of(simd)->bmi2;
    }
    if (head->layout == BSX_RL) {
        const uint32_t limit = head->block_rows * head->block_cols;
        bsx_build_table(parts.runs, bsx_code_of(head->run_code), limit, 0, sizeof(uint16_t), NULL);
        parts.runs->bmi2 = bsx_kernels_of(simd)->bmi2;
    }
    return read_index(blob, head, &parts) ? BSX_OK : BSX_BAD_INDEX;
}

bsx_status bsx_prepare(const void *blob, size_t size, const bsx_head *head, int out_type, void *workspace,
                       size_t workspace_bytes) {
    return bsx_prepare_with(blob, size, head, out_type, bsx_simd_best(), workspace, workspace_bytes);
}
