/* blob.h - what the library's parts share: the blocks of a blob, the decoders of its streams, the prepared workspace. */
#ifndef BSX_BLOB_H
#define BSX_BLOB_H

#include <stdbool.h>
#include <string.h>

#include "bits.h"
#include "bsx.h"

#define BSX_MAX_WEIGHTS (UINT64_C(1) << 40)
#define BSX_MAX_BLOCK 65536U   /* weights of a block */
#define BSX_MAX_SYMBOLS 65536U /* entries of a codebook */
#define BSX_MIN_PAIRED 3U      /* with pairs: so many at least */
#define BSX_MAX_PAIRED 65U     /* and at most */
#define BSX_MAX_CLASS 63U
#define BSX_MAX_LEVEL (1 << 24)
#define BSX_MAX_CODE 31U /* family 1, order 15 */
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
    uint32_t bitmap_bytes; /* BM, else 0 */
    uint32_t run_bytes;    /* RL, else 0 */
    uint32_t level_bytes;  /* RL, EG, BM: of the level stream; RAW: of the weights */
    uint32_t coded;        /* weights in the level stream; RAW, BM: 0, since the index does not say */
    uint32_t crc;
} bsx_block;

/* Is the geometry that of section 5? rows and cols are at least 1, their product is at most 2^40. */
bool bsx_grid_valid(const bsx_grid *grid);
uint64_t bsx_grid_blocks(const bsx_grid *grid);
/* The place and the number of weights of block i < bsx_grid_blocks. */
uint64_t bsx_grid_first(const bsx_grid *grid, uint64_t i);
uint32_t bsx_grid_weights(const bsx_grid *grid, uint64_t i);

bsx_grid bsx_head_grid(const bsx_head *head);
/* Numbers, and bytes, of an index entry: the counts, and then the CRC. */
unsigned bsx_counts(unsigned layout);
unsigned bsx_entry_bytes(unsigned layout, unsigned index_width);
/* Read block i of the index; the index lies within the blob. False: its counts break a rule of BAD_INDEX. */
bool bsx_read_block(const uint8_t *blob, const bsx_head *head, uint64_t i, bsx_block *block);
/* Bytes of the payload that a block takes. */
uint64_t bsx_block_bytes(const bsx_block *block);
/* Codewords of a level stream with n symbols. */
uint32_t bsx_codewords(const bsx_head *head, uint32_t n);

/* ---- codebook.c: section 4 ---- */

/* Decode head->symbols levels and, with pairs, the classes of the symbols 1 to symbols - 1. Both may be NULL: then they
 * are only checked. False: it breaks a rule of BAD_CODEBOOK. */
bool bsx_read_codebook(const uint8_t *blob, const bsx_head *head, int32_t *levels, uint8_t *classes);
/* Set head->least_level and head->greatest_level. False as above. */
bool bsx_check_codebook(const uint8_t *blob, bsx_head *head);

/* ---- pairs.c: section 6, the order of pairs ---- */

/* The pairs of symbols 1 to n (here 0 to n-1, n <= 64) by rank: first[r] and second[r], n*n each. classes: n. */
void bsx_rank_pairs(const uint8_t *classes, uint32_t n, uint8_t *first, uint8_t *second);

/* ---- values.c: section 6, from levels to weights ---- */

/* Bytes of a weight of a type that levels can be decoded to; 0: they cannot. */
unsigned bsx_type_bytes(int type);
/* Do the integers of this type hold the levels of the codebook? True for the floating-point types. */
bool bsx_type_holds(int type, const bsx_head *head);
/* What each level is decoded to: float32(level) * float32(step) as a floating-point type, or the level itself. */
void bsx_fill_values(const int32_t *levels, size_t count, float step, int type, void *values);

/* ---- table.c: what codewords stand for, several per look-up ---- */

#define BSX_TABLE_BITS 11U
#define BSX_ENTRY_BYTES 8U

/* How a stream is decoded. A codeword's value v < limit stands for one or two elements of one or two bytes: the first of
 * the four bytes at map[v] if there is a map, else the uint16_t v + base. The next 11 bits of a stream, as a number i, hold
 * whole codewords, contents[i] & 255 bits long together, that stand for the first contents[i] >> 8 bytes of elements[i].
 * No codeword: it is longer than 11 bits, or its value is not below the limit. */
typedef struct bsx_table {
    uint8_t elements[1U << BSX_TABLE_BITS][BSX_ENTRY_BYTES];
    uint16_t contents[1U << BSX_TABLE_BITS];
    bsx_code code;
    uint32_t limit;
    uint32_t longest; /* bits of the longest codeword, at most 47 */
    uint32_t zeros;   /* that a codeword starts with at most, escapes of Golomb-Rice left out */
    uint32_t base;
    uint32_t bytes; /* of what a value stands for */
    bool mapped;
    bool bmi2; /* for processors with these instructions */
} bsx_table;

/* What a loop over codewords is compiled for. */
typedef struct bsx_shape {
    unsigned family;
    bool mapped;
} bsx_shape;

/* Set the fields but for bmi2, and fill the entries. map: NULL, or what each of the values stands for, of which there is
 * one at least even if limit is 0. limit <= 65536; 0: no value is valid. */
void bsx_build_table(bsx_table *table, bsx_code code, uint32_t limit, uint32_t base, unsigned bytes,
                     const uint32_t *map);

/* Store what a value stands for, as four bytes of which the first table->bytes count. */
static inline void bsx_store_value(void *out, const bsx_table *table, const uint32_t *map, uint32_t value) {
    const uint32_t elements = table->mapped ? map[value] : (uint16_t)(value + table->base);
    memcpy(out, &elements, sizeof elements);
}

/* ---- stream.c and direct.c: whole bitstreams ---- */

/* The stores that decode a stream may reach so many bytes past its last element, and so may later loads. */
#define BSX_STREAM_SLOP 96U
/* Streams decoded side by side, to keep the processor busy while each waits for its own codewords. */
#define BSX_LANES 4U

/* Blocks decoded together: a stream that ends makes room for another one's. */
#define BSX_GROUP 8U

typedef struct bsx_stream {
    const uint8_t *data;
    uint32_t size;  /* bytes */
    uint32_t count; /* codewords that it must hold */
    void *elements; /* room for what they stand for and BSX_STREAM_SLOP bytes */
    bool ok;        /* result: it holds exactly that, and ends as section 3 says */
} bsx_stream;

/* Decode streams of one table. map: the one that it was built with. */
void bsx_read_streams(bsx_stream *streams, unsigned count, const bsx_table *table, const uint32_t *map);
/* The same, each in its own way: by look-ups, which is fast as long as a look-up finds several codewords; or from each
 * codeword's zero bits. */
void bsx_read_by_table(bsx_stream *streams, unsigned count, const bsx_table *table, const uint32_t *map);
void bsx_read_direct(bsx_stream *streams, unsigned count, const bsx_table *table, const uint32_t *map);

/* ---- scatter.c: from elements to values ---- */

typedef struct bsx_elements {
    const void *elements; /* uint8_t, or uint16_t if wide */
    const void *values;   /* of item_bytes each: what is written for each element; uint8_t as uint8_t: itself */
    unsigned item_bytes;  /* 1, 2, 4 or 8 */
    bool wide;
} bsx_elements;

/* Write the values of `count` elements. */
void bsx_gather(uint8_t *out, size_t count, const bsx_elements *from);
/* Write `weights` values: those of `coded` elements, each after a run of values of element 0, and after them the value of
 * element 0. False: that is more than `weights`; then some may be written. */
bool bsx_scatter(uint8_t *out, size_t weights, const uint16_t *runs, size_t coded, const bsx_elements *from);

/* ---- prepare.c: the caller's workspace ---- */

/* What the level stream is decoded to. */
typedef enum bsx_form {
    BSX_AS_LEVELS, /* int8_t levels: all of them fit, and in RL and BM that of symbol 0 is 0 */
    BSX_AS_SYMBOLS /* uint16_t symbols */
} bsx_form;

/* At the start of the workspace. */
typedef struct bsx_setup {
    int out_type;
    unsigned item_bytes;
    bsx_form form;
    unsigned simd; /* which of bsx_kernels */
    bool crc32c;   /* as bsx_crc32c_instruction said */
    float step;
} bsx_setup;

typedef struct bsx_workspace {
    bsx_setup *setup;
    bsx_table *levels, *runs; /* runs: RL only */
    uint32_t *map;            /* of the level table */
    int32_t *codebook;        /* symbols */
    void *values;             /* what is written for each symbol or, by its bits as uint8_t, for each int8_t level */
    uint64_t *offsets;        /* blocks: where each starts in the payload */
} bsx_workspace;

uint64_t bsx_workspace_bytes(const bsx_head *head);
/* The parts of a workspace of at least bsx_workspace_bytes. */
bsx_workspace bsx_workspace_parts(const bsx_head *head, const void *workspace);
uint64_t bsx_scratch_bytes(const bsx_head *head);
void *bsx_align(const void *buffer);

/* bsx_prepare, but with kernels of one's choice: tests run with each. */
bsx_status bsx_prepare_with(const void *blob, size_t size, const bsx_head *head, int out_type, unsigned simd,
                            void *workspace, size_t workspace_bytes);

#endif
