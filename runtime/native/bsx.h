/* bsx.h - decode and encode bsexport blobs (docs/format.md, version 0).
 *
 * The caller allocates, every pointer comes with its size, nothing is kept between calls, and no function has mutable
 * global state: all may be called from any number of threads at once. Whatever the bytes of a blob are, nothing is
 * read or written outside the buffers that were passed in.
 *
 * To decode:   bsx_parse -> allocate head.workspace_bytes and head.scratch_bytes -> bsx_prepare -> bsx_decode ...
 *              One prepared workspace serves any number of threads; each thread needs a scratch of its own.
 * To encode:   bsx_lookup_prepare -> bsx_encode ...
 */
#ifndef BSX_H
#define BSX_H

#include <stddef.h>
#include <stdint.h>

#define BSX_VERSION 0x000100 /* 0.1.0 as major << 16 | minor << 8 | patch */

#if defined(_WIN32) && defined(BSX_SHARED)
#define BSX_API __declspec(dllexport)
#elif defined(__GNUC__)
#define BSX_API __attribute__((visibility("default")))
#else
#define BSX_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What is wrong with a blob: docs/format.md, section 9. The numbers never change. */
typedef enum bsx_status {
    BSX_OK = 0,
    BSX_TRUNCATED = 1,
    BSX_TRAILING_BYTES = 2,
    BSX_BAD_MAGIC = 3,
    BSX_BAD_VERSION = 4,
    BSX_BAD_LAYOUT = 5,
    BSX_BAD_DTYPE = 6,
    BSX_BAD_SHAPE = 7,
    BSX_BAD_BLOCKS = 8,
    BSX_BAD_CODE = 9,
    BSX_BAD_STEP = 10,
    BSX_BAD_RESERVED = 11,
    BSX_HEAD_CRC = 12,
    BSX_BAD_CODEBOOK = 13,
    BSX_BAD_INDEX = 14,
    BSX_BLOCK_CRC = 15,
    BSX_BAD_STREAM = 16,
    BSX_BAD_ARGUMENT = 17 /* not of the blob: the caller's buffer or range is wrong */
} bsx_status;

typedef enum bsx_layout { BSX_RAW = 0, BSX_EG = 1, BSX_RL = 2, BSX_BM = 3 } bsx_layout;

/* The types that levels can be decoded to: to weights as floating-point numbers, or as they are to integers. The numbers are those of ONNX's TensorProto.DataType. */
typedef enum bsx_dtype {
    BSX_FLOAT32 = 1,
    BSX_INT8 = 3,
    BSX_INT16 = 5,
    BSX_INT32 = 6,
    BSX_FLOAT16 = 10,
    BSX_FLOAT64 = 11,
    BSX_BFLOAT16 = 16
} bsx_dtype;

/* A checked head: section 2 of the format, and what follows from it. Filled by bsx_parse; not to be changed. */
typedef struct bsx_head {
    uint64_t dims[8];         /* the first ndim of them count, the others are 0 */
    uint64_t rows, cols;      /* the tensor as a matrix: dims[0] x the product of the others */
    uint64_t weights, blocks; /* how many there are */
    uint64_t head_bytes;      /* where the payload starts */
    uint64_t payload_bytes;
    uint64_t codebook_offset, index_offset; /* bytes from the blob's start */
    uint64_t workspace_bytes;               /* what bsx_prepare needs */
    uint64_t scratch_bytes;                 /* what each concurrent bsx_decode needs */
    float step;
    int32_t least_level, greatest_level; /* of the codebook; RAW: 0 */
    uint32_t symbols, block_rows, block_cols, codebook_bytes;
    uint8_t layout, dtype, ndim, level_code, run_code, codebook_code, index_width, pairs;
    uint8_t item_bytes; /* bytes of a decoded weight */
} bsx_head;

/* BSX_VERSION of the library. A binding compares it, and sizeof(bsx_head), with what it was written for. */
BSX_API uint32_t bsx_version(void);
BSX_API size_t bsx_head_size(void);

/* The name of a status without "BSX_", "UNKNOWN" for other numbers. Never NULL. */
BSX_API const char *bsx_status_name(int status);

/* CRC-32C of size bytes (section 2), by the processor's instruction if it has one. NULL is allowed if size is 0. */
BSX_API uint32_t bsx_crc32c(const void *data, size_t size);

/* Which of the two is used: "sse4.2", "armv8" or "table". */
BSX_API const char *bsx_crc32c_name(void);

/* Check the head of a blob of exactly size bytes: all the rules 1 to 20 of section 9, in that order.
 * head is only meaningful after BSX_OK. */
BSX_API bsx_status bsx_parse(const void *blob, size_t size, bsx_head *head);

/* Write the codebook, the values, the decode tables and the blocks' offsets into workspace, of at least
 * head->workspace_bytes, at any alignment. Read-only afterwards, valid while the blob's bytes are unchanged.
 *
 * out_type  what bsx_decode will write. RAW: head->dtype. Else one of bsx_dtype, whatever head->dtype is;
 *           BSX_BAD_ARGUMENT if BSX_INT8 or BSX_INT16 does not hold a level of the codebook. */
BSX_API bsx_status bsx_prepare(const void *blob, size_t size, const bsx_head *head, int out_type, void *workspace,
                               size_t workspace_bytes);

/* How bsx_decode writes. */
enum {
    BSX_AROUND_CACHE = 1 /* past the caches, where the processor can: all that is decoded is larger than they are */
};

/* Decode `count` blocks from first_block on; consecutive blocks are consecutive weights.
 *
 * flags      0, or BSX_AROUND_CACHE.
 * out        at any alignment; out_bytes is exactly the blocks' weights times the type's size.
 * scratch    at least head->scratch_bytes, at any alignment.
 * bad_block  the first block that is damaged after BSX_BLOCK_CRC or BSX_BAD_STREAM; may be NULL. What is in out is
 *            then unspecified. */
BSX_API bsx_status bsx_decode(const void *blob, size_t size, const bsx_head *head, const void *workspace,
                              size_t workspace_bytes, uint64_t first_block, uint64_t count, unsigned flags, void *out,
                              size_t out_bytes, void *scratch, size_t scratch_bytes, uint64_t *bad_block);

/* How a payload is to be written: sections 3, 5 and 6. The layout is not BSX_RAW. */
typedef struct bsx_plan {
    uint64_t rows, cols;
    uint32_t symbols, block_rows, block_cols;
    uint8_t layout, level_code, run_code, pairs;
} bsx_plan;

/* Bytes of the table from levels to symbols; 0 if symbols is not 1 to 65536. */
BSX_API size_t bsx_lookup_bytes(size_t symbols);

/* Build that table. classes: of the symbols 1 to symbols - 1, if the plan asks for pairs, else NULL.
 * BSX_BAD_CODEBOOK: a level is beyond +-2^24 or occurs twice, a class falls or is above 63, or with classes there are not
 * 3 to 65 symbols. */
BSX_API bsx_status bsx_lookup_prepare(const int32_t *codebook, size_t symbols, const uint8_t *classes, void *lookup,
                                      size_t lookup_bytes);

/* Bytes that one block of the plan can need at most while it is written; 0 if the plan breaks a rule. */
BSX_API size_t bsx_block_bound(const bsx_plan *plan);

/* Where bsx_encode stopped. */
typedef struct bsx_progress {
    uint64_t blocks;    /* blocks written */
    size_t bytes;       /* bytes of out that they take */
    uint64_t bad_level; /* after BSX_BAD_CODEBOOK: place (row-major) of the first level that is not in the codebook */
} bsx_progress;

/* Encode `count` blocks from first_block on, one after another, as long as out has room for the next one; call again
 * from there. Succeeds with at least one block if out_bytes >= bsx_block_bound(plan).
 *
 * levels   the whole tensor, row-major, level_count = plan->rows * plan->cols.
 * counts   count entries as in section 5 without the CRC: one number per block in EG and BM, three in RL. */
BSX_API bsx_status bsx_encode(const bsx_plan *plan, const int32_t *levels, size_t level_count, const void *lookup,
                              size_t lookup_bytes, uint64_t first_block, uint64_t count, void *out, size_t out_bytes,
                              uint32_t *counts, size_t counts_count, bsx_progress *progress);

/* Count values, as an encoder's choice of layout needs it: of each of `count` values, 32 bits wide, the bin
 * ((value & mask) - least) >> shift is counted. BSX_BAD_ARGUMENT if one is `bins` or more; some are counted by then.
 *
 * tables   tables_count / bins tables, 1, 2, 4 or another power of two, which take the values in turns and are added to;
 *          their sum is the histogram. A single count that most values go to is slow: it waits for itself. */
BSX_API bsx_status bsx_count(const void *values, size_t count, uint32_t mask, uint32_t least, unsigned shift, size_t bins,
                             uint32_t *tables, size_t tables_count);

#ifdef __cplusplus
}
#endif
#endif
