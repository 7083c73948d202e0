/* test_heads.c - every rule of section 9 about heads, each broken in a blob that is otherwise right. */
#include <stdlib.h>
#include <string.h>

#include "blob_writer.h"
#include "bsx.h"
#include "check.h"

/* 2 x 3 weights in two blocks, levels 0, +1, -1: an RL blob of 128 head bytes and 4 payload bytes. */
static const blob_text rl = {
    .layout = 2, .dtype = 1, .ndim = 2, .step = 0.5F, .symbols = 3, .block_rows = 1, .block_cols = 3,
    .index_width = 2, .dims = {2, 3}, .codebook = "1 010 010",
    .blocks = {{"010 1", "1 010", 2}, {"011", "010", 1}}, .block_count = 2,
};
static const blob_text raw = {
    .layout = 0, .dtype = 5, .ndim = 1, .block_rows = 2, .block_cols = 1, .index_width = 2, .dims = {3},
    .blocks = {{NULL, "00000001 00000000 11111111 11111111", 0}, {NULL, "00000010 00000000", 0}}, .block_count = 2,
};

/* The two dims end at 64, the codebook takes 1 byte, the index starts at 65. */
enum { DIMS = 48, CODEBOOK = 64, INDEX = 65, PADDING = 85 };

typedef struct change {
    const char *name;
    unsigned offset, bytes;
    uint64_t value;
    bsx_status status;
} change;

static const change rl_changes[] = {
    {"magic", 3, 1, 'c', BSX_BAD_MAGIC},
    {"version", 4, 2, 1, BSX_BAD_VERSION},
    {"layout", 6, 1, 4, BSX_BAD_LAYOUT},
    {"dtype 0", 7, 1, 0, BSX_BAD_DTYPE},
    {"dtype string", 7, 1, 8, BSX_BAD_DTYPE},
    {"dtype beyond", 7, 1, 21, BSX_BAD_DTYPE},
    {"dtype of RAW only", 7, 1, 6, BSX_BAD_DTYPE},
    {"no dims", 8, 1, 0, BSX_BAD_SHAPE},
    {"nine dims", 8, 1, 9, BSX_BAD_SHAPE},
    {"family 2 of levels", 9, 1, 32, BSX_BAD_CODE},
    {"family 2 of runs", 10, 1, 32, BSX_BAD_CODE},
    {"family 1 of codebook", 11, 1, 16, BSX_BAD_CODE},
    {"index width", 44, 1, 3, BSX_BAD_CODE},
    {"pairs 2", 45, 1, 2, BSX_BAD_CODE},
    {"pairs without classes", 45, 1, 1, BSX_BAD_CODEBOOK},
    {"step 0", 12, 4, 0, BSX_BAD_STEP},
    {"step -0.5", 12, 4, 0xBF000000, BSX_BAD_STEP},
    {"step infinite", 12, 4, 0x7F800000, BSX_BAD_STEP},
    {"step NaN", 12, 4, 0x7FC00000, BSX_BAD_STEP},
    {"no symbols", 16, 4, 0, BSX_BAD_CODEBOOK},
    {"65537 symbols", 16, 4, 65537, BSX_BAD_CODEBOOK},
    {"reserved", 47, 1, 1, BSX_BAD_RESERVED},
    {"a dim of 0", DIMS + 8, 8, 0, BSX_BAD_SHAPE},
    {"2^40 x 3 weights", DIMS, 8, UINT64_C(1) << 40, BSX_BAD_SHAPE},
    {"a product that overflows", DIMS, 8, UINT64_C(1) << 63, BSX_BAD_SHAPE},
    {"a product that wraps to 2", DIMS, 8, UINT64_C(0xAAAAAAAAAAAAAAAB), BSX_BAD_SHAPE},
    {"block_rows 0", 20, 4, 0, BSX_BAD_BLOCKS},
    {"block_rows beyond", 20, 4, 3, BSX_BAD_BLOCKS},
    {"block_cols 0", 24, 4, 0, BSX_BAD_BLOCKS},
    {"block_cols beyond", 24, 4, 4, BSX_BAD_BLOCKS},
    {"blocks of 2 x 2", 20, 8, UINT64_C(0x200000002), BSX_BAD_BLOCKS},
    {"codebook longer than the blob", 28, 4, 1000, BSX_TRUNCATED},
    {"codebook of 2^32 - 1", 28, 4, 0xFFFFFFFF, BSX_TRUNCATED},
    {"2^38 blocks", DIMS, 8, UINT64_C(1) << 38, BSX_TRUNCATED},
    {"padding", PADDING, 1, 1, BSX_BAD_RESERVED},
    {"codebook too short", 16, 4, 4, BSX_BAD_CODEBOOK},
    {"codebook too long", 16, 4, 2, BSX_BAD_CODEBOOK},
    {"codebook to z = -1", CODEBOOK, 1, 0x4C, BSX_BAD_CODEBOOK},
    {"run bytes", INDEX, 2, 2, BSX_BAD_INDEX},
    {"level bytes", INDEX + 2, 2, 0, BSX_BAD_INDEX},
    {"no level bytes", INDEX, 4, 2, BSX_BAD_INDEX},
    {"no run bytes", INDEX, 4, UINT64_C(2) << 16, BSX_BAD_INDEX},
    {"more coded weights than weights", INDEX + 4, 2, 4, BSX_BAD_INDEX},
    {"no coded weights", INDEX + 4, 2, 0, BSX_BAD_INDEX},
    {"payload_bytes low", 32, 8, 3, BSX_BAD_INDEX},
    {"payload_bytes huge", 32, 8, UINT64_MAX, BSX_BAD_INDEX},
};

static const change raw_changes[] = {
    {"dtype", 7, 1, 9, BSX_BAD_INDEX}, /* bool: one byte a weight */
    {"level_code", 9, 1, 1, BSX_BAD_CODE},
    {"run_code", 10, 1, 1, BSX_BAD_CODE},
    {"pairs", 45, 1, 1, BSX_BAD_CODE},
    {"codebook_code", 11, 1, 1, BSX_BAD_CODE},
    {"step", 12, 4, 0x80000000, BSX_BAD_STEP},
    {"symbols", 16, 4, 1, BSX_BAD_CODEBOOK},
    {"codebook_bytes", 28, 4, 1, BSX_BAD_CODEBOOK},
};

static bsx_status parse(const uint8_t *blob, size_t size) {
    bsx_head head;
    return bsx_parse(blob, size, &head);
}

static void test_changes(const blob_text *text, size_t head_bytes, const change *changes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t size;
        uint8_t *blob = write_blob(text, &size);
        const change *c = &changes[i];
        for (unsigned b = 0; b < c->bytes; b++) blob[c->offset + b] = (uint8_t)(c->value >> 8 * b);
        seal_head(blob, head_bytes);
        CHECK_ROW(parse(blob, size) == c->status, c->name);
        free(blob);
    }
}

/* Each shorter blob, in memory of its own size, so that a sanitizer sees a read beyond it. */
static void test_lengths(const blob_text *text) {
    size_t size;
    uint8_t *blob = write_blob(text, &size);
    for (size_t kept = 0; kept < size; kept++) {
        uint8_t *part = malloc(kept + (kept == 0));
        memcpy(part, blob, kept);
        CHECK(parse(part, kept) == BSX_TRUNCATED);
        free(part);
    }
    uint8_t *longer = malloc(size + 1);
    memcpy(longer, blob, size);
    longer[size] = 0;
    CHECK(parse(longer, size) == BSX_OK);
    CHECK(parse(longer, size + 1) == BSX_TRAILING_BYTES);
    free(longer);
    free(blob);
}

static void test_fields(void) {
    size_t size;
    bsx_head head;
    uint8_t *blob = write_blob(&rl, &size);
    CHECK(bsx_parse(blob, size, &head) == BSX_OK);
    CHECK(size == 132 && head.head_bytes == 128 && head.payload_bytes == 4);
    CHECK(head.layout == BSX_RL && head.dtype == BSX_FLOAT32 && head.ndim == 2 && head.item_bytes == 4);
    CHECK(head.dims[0] == 2 && head.dims[1] == 3 && head.dims[2] == 0 && head.rows == 2 && head.cols == 3);
    CHECK(head.weights == 6 && head.blocks == 2 && head.symbols == 3 && head.step == 0.5F);
    CHECK(head.least_level == -1 && head.greatest_level == 1 && head.pairs == 0);
    CHECK(head.codebook_offset == CODEBOOK && head.index_offset == INDEX && head.codebook_bytes == 1);
    blob[PADDING] ^= 1; /* not sealed */
    CHECK(parse(blob, size) == BSX_HEAD_CRC);
    free(blob);
    CHECK(bsx_parse(NULL, 1, &head) == BSX_BAD_ARGUMENT);
    CHECK(bsx_parse("", 0, NULL) == BSX_BAD_ARGUMENT);
    CHECK(strcmp(bsx_status_name(BSX_OK), "OK") == 0);
    CHECK(strcmp(bsx_status_name(BSX_HEAD_CRC), "HEAD_CRC") == 0);
    CHECK(strcmp(bsx_status_name(BSX_BAD_ARGUMENT), "BAD_ARGUMENT") == 0);
    CHECK(strcmp(bsx_status_name(18), "UNKNOWN") == 0 && strcmp(bsx_status_name(-1), "UNKNOWN") == 0);
    CHECK(bsx_version() == BSX_VERSION && bsx_head_size() == sizeof(bsx_head));
}

/* Every changed bit of a head is found. */
static void test_bits(void) {
    size_t size;
    uint8_t *blob = write_blob(&rl, &size);
    for (size_t bit = 0; bit < 8 * (size_t)128; bit++) {
        blob[bit / 8] ^= (uint8_t)(1U << bit % 8);
        CHECK(parse(blob, size) != BSX_OK);
        blob[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    free(blob);
}

void test_heads(void) {
    test_fields();
    test_changes(&rl, 128, rl_changes, sizeof rl_changes / sizeof rl_changes[0]);
    test_changes(&raw, 128, raw_changes, sizeof raw_changes / sizeof raw_changes[0]);
    test_lengths(&rl);
    test_lengths(&raw);
    test_bits();
}
