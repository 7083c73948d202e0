/* blob.h - what the library's parts share: the blocks of a blob, the prepared workspace, the decode tables. */
#ifndef BSX_BLOB_H
#define BSX_BLOB_H

#include <stdbool.h>

#include "bsx.h"

#define BSX_MAX_WEIGHTS (UINT64_C(1) << 40)
#define BSX_MAX_BLOCK 65536U   /* weights of a block */
#define BSX_MAX_SYMBOLS 65536U /* entries of a codebook */
#define BSX_MAX_LEVEL (1 << 24)
#define BSX_ALIGNMENT 64U

/* ---- block.c: section 5 ---- */

/* How a matrix is cut into blocks. */
typedef struct bsx_grid {
    uint64_t rows, cols;
    uint32_t block_rows, block_cols;
} bsx_grid;

typedef struct bsx_block {
    uint64_t first_weight; /* place in the tensor, row-major */
    uint32_t weights;
    uint32_t run_bytes;   /* RL, else 0 */
    uint32_t level_bytes; /* RL, EG: of the level stream; RAW: of the weights */
    uint32_t coded;       /* weights with a codeword in the level stream; RAW: 0 */
    uint32_t crc;
} bsx_block;

/* Is the geometry that of section 5? rows and cols are at least 1, their product is at most 2^40. */
bool bsx_grid_valid(const bsx_grid *grid);
uint64_t bsx_grid_blocks(const bsx_grid *grid);
/* The place and the number of weights of block i < bsx_grid_blocks. */
uint64_t bsx_grid_first(const bsx_grid *grid, uint64_t i);
uint32_t bsx_grid_weights(const bsx_grid *grid, uint64_t i);

bsx_grid bsx_head_grid(const bsx_head *head);
/* Bytes of an index entry: the counts and the CRC. */
unsigned bsx_entry_bytes(unsigned layout, unsigned index_width);
/* Read block i of the index; the index lies within the blob. False: its counts break a rule of BAD_INDEX. */
bool bsx_read_block(const uint8_t *blob, const bsx_head *head, uint64_t i, bsx_block *block);

/* ---- codebook.c: section 4 ---- */

/* Decode head->symbols levels. levels may be NULL: only check. False: it breaks a rule of BAD_CODEBOOK. */
bool bsx_read_codebook(const uint8_t *blob, const bsx_head *head, int32_t *levels);
/* float32(level) * float32(step) as dtype, for each level. */
void bsx_fill_values(const int32_t *levels, size_t count, float step, unsigned dtype, void *values);

/* ---- table.c: several codewords per look-up ---- */

#define BSX_TABLE_BITS 11U
#define BSX_TABLE_SYMBOLS 7U

/* What the next 11 bits hold: `count` whole codewords, `bits` long together. No codeword: it is longer than 11 bits, or
 * its value is not below the limit. 16 bytes, so that all values are copied by one store. */
typedef struct bsx_entry {
    uint16_t values[BSX_TABLE_SYMBOLS];
    uint8_t count, bits;
} bsx_entry;

typedef struct bsx_table {
    bsx_entry entries[1U << BSX_TABLE_BITS];
    uint32_t order;
    uint32_t limit;   /* values are below it */
    uint32_t longest; /* bits of the longest codeword, at most 33 */
} bsx_table;

/* limit <= 65536; 0: no value is valid. */
void bsx_build_table(bsx_table *table, unsigned order, uint32_t limit);

/* ---- stream.c: whole bitstreams ---- */

/* The stores that decode a stream may reach this far past its last value. */
#define BSX_STREAM_SLOP 64U
/* Streams decoded side by side, to keep the processor busy while each waits for its own table look-ups. */
#define BSX_LANES 4U

typedef struct bsx_stream {
    const uint8_t *data;
    uint32_t size;    /* bytes */
    uint32_t count;   /* codewords it must hold */
    uint16_t *values; /* room for count + BSX_STREAM_SLOP */
    bool ok;          /* result: it holds exactly that, and ends as section 3 says */
} bsx_stream;

/* Decode `lanes` <= BSX_LANES streams of one code. */
void bsx_read_streams(bsx_stream *streams, unsigned lanes, const bsx_table *table);

/* ---- prepare.c: the caller's workspace ---- */

typedef struct bsx_workspace {
    bsx_table *levels, *runs; /* runs: RL only */
    int32_t *codebook;        /* symbols */
    void *values;             /* symbols, as head->dtype */
    uint64_t *offsets;        /* blocks: where each starts in the payload */
} bsx_workspace;

uint64_t bsx_workspace_bytes(const bsx_head *head);
/* The parts of a workspace of at least bsx_workspace_bytes. */
bsx_workspace bsx_workspace_parts(const bsx_head *head, const void *workspace);
uint64_t bsx_scratch_bytes(const bsx_head *head);
void *bsx_align(const void *buffer);

#endif
