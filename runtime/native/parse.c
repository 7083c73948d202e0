/* parse.c - check the head of a blob: rules 1 to 20 of section 9, in their order. */
#include <string.h>

#include "bits.h"
#include "blob.h"
#include "crc32c.h"

#define FIXED_BYTES 48U
#define MAX_DIMS 8U
#define PAYLOAD_ALIGNMENT 64U
#define CRC_OFFSET 40U

/* Bytes of a decoded weight; 0: not a dtype of section 2. */
static uint8_t item_bytes(unsigned dtype) {
    static const uint8_t bytes[21] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 8, 16, 2, 1, 1, 1, 1};
    return dtype < sizeof bytes ? bytes[dtype] : 0;
}

static bool is_float(unsigned dtype) {
    return dtype == BSX_FLOAT32 || dtype == BSX_FLOAT16 || dtype == BSX_FLOAT64 || dtype == BSX_BFLOAT16;
}

static bool codes_valid(const bsx_head *head) {
    const bool raw = head->layout == BSX_RAW;
    return head->level_code <= (raw ? 0 : BSX_MAX_CODE) && head->codebook_code <= (raw ? 0 : BSX_MAX_ORDER) &&
           head->run_code <= (head->layout == BSX_RL ? BSX_MAX_CODE : 0) &&
           (head->index_width == 2 || head->index_width == 4) &&
           head->pairs <= (head->layout == BSX_RL || head->layout == BSX_BM ? 1 : 0);
}

static bool symbols_valid(const bsx_head *head) {
    if (head->layout == BSX_RAW) return head->symbols == 0 && head->codebook_bytes == 0;
    if (head->pairs) return head->symbols >= BSX_MIN_PAIRED && head->symbols <= BSX_MAX_PAIRED;
    return head->symbols >= 1 && head->symbols <= BSX_MAX_SYMBOLS;
}

static bool step_valid(const uint8_t *bytes, const bsx_head *head) {
    const uint32_t bits = bsx_load_le32(bytes);
    if (head->layout == BSX_RAW) return bits == 0;
    return bits > 0 && bits < 0x7F800000; /* positive, neither infinity nor NaN */
}

/* Rules 2 to 10: the first 48 bytes. */
static bsx_status read_fixed(const uint8_t *blob, bsx_head *head) {
    if (memcmp(blob, "BSXB", 4) != 0) return BSX_BAD_MAGIC;
    if (bsx_load_le16(blob + 4) != 0) return BSX_BAD_VERSION;
    head->layout = blob[6];
    head->dtype = blob[7];
    head->ndim = blob[8];
    head->level_code = blob[9];
    head->run_code = blob[10];
    head->codebook_code = blob[11];
    memcpy(&head->step, blob + 12, 4);
    head->symbols = bsx_load_le32(blob + 16);
    head->block_rows = bsx_load_le32(blob + 20);
    head->block_cols = bsx_load_le32(blob + 24);
    head->codebook_bytes = bsx_load_le32(blob + 28);
    head->payload_bytes = bsx_load_le64(blob + 32);
    head->index_width = blob[44];
    head->pairs = blob[45];
    head->item_bytes = item_bytes(head->dtype);
    const bool raw = head->layout == BSX_RAW;
    if (head->layout > BSX_BM) return BSX_BAD_LAYOUT;
    if (head->item_bytes == 0 || (!raw && !is_float(head->dtype))) return BSX_BAD_DTYPE;
    if (head->ndim < 1 || head->ndim > MAX_DIMS) return BSX_BAD_SHAPE;
    if (!codes_valid(head)) return BSX_BAD_CODE;
    if (!step_valid(blob + 12, head)) return BSX_BAD_STEP;
    if (!symbols_valid(head)) return BSX_BAD_CODEBOOK;
    if (blob[46] | blob[47]) return BSX_BAD_RESERVED;
    return BSX_OK;
}

/* Rules 11 to 13: dims and blocks. */
static bsx_status read_shape(const uint8_t *blob, size_t size, bsx_head *head) {
    if (size < FIXED_BYTES + 8U * head->ndim) return BSX_TRUNCATED;
    head->weights = 1;
    for (unsigned i = 0; i < head->ndim; i++) {
        const uint64_t dim = bsx_load_le64(blob + FIXED_BYTES + 8U * i);
        if (dim < 1 || dim > BSX_MAX_WEIGHTS / head->weights) return BSX_BAD_SHAPE;
        head->dims[i] = dim;
        head->weights *= dim;
    }
    head->rows = head->dims[0];
    head->cols = head->weights / head->rows;
    const bsx_grid grid = bsx_head_grid(head);
    if (!bsx_grid_valid(&grid)) return BSX_BAD_BLOCKS;
    head->blocks = bsx_grid_blocks(&grid);
    return BSX_OK;
}

/* Rules 14 to 16: the head's end. blocks <= 2^40, so that nothing here overflows. */
static bsx_status check_extent(const uint8_t *blob, size_t size, bsx_head *head) {
    head->codebook_offset = FIXED_BYTES + 8U * head->ndim;
    head->index_offset = head->codebook_offset + head->codebook_bytes;
    const uint64_t end = head->index_offset + head->blocks * bsx_entry_bytes(head->layout, head->index_width);
    head->head_bytes = (end + PAYLOAD_ALIGNMENT - 1) / PAYLOAD_ALIGNMENT * PAYLOAD_ALIGNMENT;
    if (head->head_bytes > size) return BSX_TRUNCATED;
    const uint8_t zero[4] = {0, 0, 0, 0};
    uint32_t crc = bsx_crc32c_more(0, blob, CRC_OFFSET);
    crc = bsx_crc32c_more(crc, zero, 4);
    crc = bsx_crc32c_more(crc, blob + CRC_OFFSET + 4, (size_t)head->head_bytes - CRC_OFFSET - 4);
    if (crc != bsx_load_le32(blob + CRC_OFFSET)) return BSX_HEAD_CRC;
    for (uint64_t i = end; i < head->head_bytes; i++) {
        if (blob[i] != 0) return BSX_BAD_RESERVED;
    }
    return BSX_OK;
}

/* Rule 18. A sum of 32-bit counts that lie in the blob, and of bitmaps, does not overflow. */
static bool index_valid(const uint8_t *blob, const bsx_head *head) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < head->blocks; i++) {
        bsx_block block;
        if (!bsx_read_block(blob, head, i, &block)) return false;
        sum += bsx_block_bytes(&block);
    }
    return sum == head->payload_bytes;
}

bsx_status bsx_parse(const void *blob, size_t size, bsx_head *head) {
    if (head == NULL || (blob == NULL && size != 0)) return BSX_BAD_ARGUMENT;
    memset(head, 0, sizeof *head);
    const uint8_t *bytes = blob;
    if (size < FIXED_BYTES) return BSX_TRUNCATED;
    bsx_status status = read_fixed(bytes, head);
    if (status == BSX_OK) status = read_shape(bytes, size, head);
    if (status == BSX_OK) status = check_extent(bytes, size, head);
    if (status != BSX_OK) return status;
    if (head->layout != BSX_RAW && !bsx_check_codebook(bytes, head)) return BSX_BAD_CODEBOOK;
    if (!index_valid(bytes, head)) return BSX_BAD_INDEX;
    if (head->payload_bytes > size - head->head_bytes) return BSX_TRUNCATED;
    if (head->payload_bytes < size - head->head_bytes) return BSX_TRAILING_BYTES;
    head->workspace_bytes = bsx_workspace_bytes(head);
    head->scratch_bytes = bsx_scratch_bytes(head);
    return BSX_OK;
}
