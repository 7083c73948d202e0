/* block.c - how a tensor is cut into blocks, and the index of them (section 5). */
#include "blob.h"

#include "bits.h"

#define MAX_COUNTS 3U

static uint64_t ceil_div(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

bool bsx_grid_valid(const bsx_grid *grid) {
    if (grid->block_rows < 1 || grid->block_rows > grid->rows) return false;
    if (grid->block_cols < 1 || grid->block_cols > grid->cols) return false;
    if (grid->block_cols != grid->cols && grid->block_rows != 1) return false;
    return (uint64_t)grid->block_rows * grid->block_cols <= BSX_MAX_BLOCK;
}

uint64_t bsx_grid_blocks(const bsx_grid *grid) {
    return ceil_div(grid->rows, grid->block_rows) * ceil_div(grid->cols, grid->block_cols);
}

uint64_t bsx_grid_first(const bsx_grid *grid, uint64_t i) {
    const uint64_t pieces = ceil_div(grid->cols, grid->block_cols);
    return i / pieces * grid->block_rows * grid->cols + i % pieces * grid->block_cols;
}

uint32_t bsx_grid_weights(const bsx_grid *grid, uint64_t i) {
    const uint64_t pieces = ceil_div(grid->cols, grid->block_cols);
    const uint64_t rows_left = grid->rows - i / pieces * grid->block_rows;
    const uint64_t cols_left = grid->cols - i % pieces * grid->block_cols;
    const uint64_t rows = rows_left < grid->block_rows ? rows_left : grid->block_rows;
    const uint64_t cols = cols_left < grid->block_cols ? cols_left : grid->block_cols;
    return (uint32_t)(rows * cols);
}

bsx_grid bsx_head_grid(const bsx_head *head) {
    const bsx_grid grid = {head->rows, head->cols, head->block_rows, head->block_cols};
    return grid;
}

unsigned bsx_counts(unsigned layout) { return layout == BSX_RL ? MAX_COUNTS : 1; }

unsigned bsx_entry_bytes(unsigned layout, unsigned index_width) { return bsx_counts(layout) * index_width + 4; }

uint64_t bsx_block_bytes(const bsx_block *block) {
    return (uint64_t)block->bitmap_bytes + block->run_bytes + block->level_bytes;
}

/* Codewords of the level stream that hold n symbols. */
uint32_t bsx_codewords(const bsx_head *head, uint32_t n) { return head->pairs ? n / 2 + n % 2 : n; }

/* Can a stream of that many bytes hold so many codewords? None is shorter than order + 1 bits. */
static bool can_hold(uint32_t bytes, uint32_t codewords, uint8_t code) {
    return 8 * (uint64_t)bytes >= (uint64_t)codewords * (bsx_code_of(code).order + 1);
}

bool bsx_read_block(const uint8_t *blob, const bsx_head *head, uint64_t i, bsx_block *block) {
    const bsx_grid grid = bsx_head_grid(head);
    const unsigned width = head->index_width;
    const unsigned numbers = bsx_counts(head->layout);
    const uint8_t *entry = blob + head->index_offset + i * bsx_entry_bytes(head->layout, width);
    uint32_t counts[MAX_COUNTS] = {0, 0, 0};
    for (unsigned j = 0; j < numbers; j++) {
        const uint8_t *p = entry + j * width;
        counts[j] = width == 2 ? bsx_load_le16(p) : bsx_load_le32(p);
    }
    block->first_weight = bsx_grid_first(&grid, i);
    block->weights = bsx_grid_weights(&grid, i);
    block->crc = bsx_load_le32(entry + numbers * width);
    block->bitmap_bytes = head->layout == BSX_BM ? (block->weights + 7) / 8 : 0;
    block->run_bytes = head->layout == BSX_RL ? counts[0] : 0;
    block->level_bytes = head->layout == BSX_RL ? counts[1] : counts[0];
    block->coded = head->layout == BSX_RL ? counts[2] : head->layout == BSX_EG ? block->weights : 0;
    if (head->layout == BSX_RAW) return block->level_bytes == (uint64_t)block->weights * head->item_bytes;
    if (!can_hold(block->level_bytes, bsx_codewords(head, block->coded), head->level_code)) return false;
    if (head->layout != BSX_RL) return true;
    if (block->coded > block->weights || !can_hold(block->run_bytes, block->coded, head->run_code)) return false;
    return (block->run_bytes == 0) == (block->coded == 0) && (block->level_bytes == 0) == (block->coded == 0);
}
