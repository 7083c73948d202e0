/* blob_writer.h - assemble blobs from bits written out as text, with nothing from the library. */
#ifndef BLOB_WRITER_H
#define BLOB_WRITER_H

#include <stddef.h>
#include <stdint.h>

/* A block: its streams as text of 0, 1 and spaces (a byte's missing bits become 0). RAW, EG: `levels` only; BM: `runs` is
 * the bitmap. */
typedef struct block_text {
    const char *runs, *levels;
    uint32_t coded; /* RL */
} block_text;

/* A head field by field, as section 2 has them. */
typedef struct blob_text {
    uint8_t layout, dtype, ndim, level_code, run_code, codebook_code;
    float step;
    uint32_t symbols, block_rows, block_cols;
    uint8_t index_width, pairs;
    uint64_t dims[8];
    const char *codebook;
    block_text blocks[8];
    unsigned block_count;
} blob_text;

/* CRC-32C bit by bit. */
uint32_t slow_crc32c(const uint8_t *data, size_t size);

/* Bits as text to bytes; how many. */
size_t pack_bits(const char *text, uint8_t *out);

/* The blob, in memory of exactly its size (the caller frees it). */
uint8_t *write_blob(const blob_text *text, size_t *size);

/* Store the right head CRC in a blob that was changed. */
void seal_head(uint8_t *blob, size_t head_bytes);

#endif
