/* fuzz_decode.c - decode whatever the bytes are. A libFuzzer target; with BSX_FUZZ_MAIN, a program that takes files.
 *
 * Every buffer has exactly the size that the library asks for, so that a sanitizer sees the first byte beyond it. */
#include <stdlib.h>
#include <string.h>

#include "blob.h"

#define CHANGES 200         /* bytes changed in each file, one after another */
#define MAX_OUT (1U << 24) /* bytes: 6554 weights can be declared in a byte (section 9) */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(const uint8_t *blob, size_t size, const bsx_head *head, int type, size_t item_bytes) {
    const size_t bytes = (size_t)head->weights * item_bytes;
    uint8_t *workspace = malloc((size_t)head->workspace_bytes);
    uint8_t *scratch = malloc((size_t)head->scratch_bytes);
    uint8_t *out = malloc(bytes);
    if (workspace && scratch && out &&
        bsx_prepare(blob, size, head, workspace, head->workspace_bytes) == BSX_OK) {
        uint64_t bad = 0;
        const bsx_status status = bsx_decode(blob, size, head, workspace, head->workspace_bytes, 0, head->blocks, type,
                                             out, bytes, scratch, head->scratch_bytes, &bad);
        if (status != BSX_OK && bad >= head->blocks) abort();
    }
    free(workspace);
    free(scratch);
    free(out);
}

static void store_le32(uint8_t *p, uint32_t x) {
    for (unsigned i = 0; i < 4; i++) p[i] = (uint8_t)(x >> 8 * i);
}

static void seal_head(uint8_t *blob, const bsx_head *head) {
    store_le32(blob + 40, 0);
    store_le32(blob + 40, bsx_crc32c(blob, (size_t)head->head_bytes));
}

/* Store the right CRCs, so that changed bytes reach the checks behind them. */
static void seal(uint8_t *blob, size_t size) {
    bsx_head head;
    if (bsx_parse(blob, size, &head) == BSX_HEAD_CRC) seal_head(blob, &head); /* head_bytes is known by then */
    if (bsx_parse(blob, size, &head) != BSX_OK) return;
    const unsigned entry_bytes = bsx_entry_bytes(head.layout, head.index_width);
    uint64_t offset = head.head_bytes;
    for (uint64_t i = 0; i < head.blocks; i++) {
        bsx_block block;
        if (!bsx_read_block(blob, &head, i, &block)) abort(); /* bsx_parse has just read it */
        const uint32_t bytes = block.run_bytes + block.level_bytes;
        store_le32(blob + head.index_offset + (i + 1) * entry_bytes - 4, bsx_crc32c(blob + offset, bytes));
        offset += bytes;
    }
    seal_head(blob, &head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *blob = malloc(size + (size == 0));
    if (blob == NULL) return 0;
    memcpy(blob, data, size);
    for (int sealed = 0; sealed < 2; sealed++) {
        bsx_head head;
        if (bsx_parse(blob, size, &head) == BSX_OK && head.weights * 16 <= MAX_OUT) {
            decode(blob, size, &head, head.dtype, head.item_bytes);
            if (head.layout != BSX_RAW) decode(blob, size, &head, BSX_INT32, sizeof(int32_t));
        }
        seal(blob, size);
    }
    free(blob);
    return 0;
}

#ifdef BSX_FUZZ_MAIN
#include <stdio.h>

static int run_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s: cannot be opened\n", path);
        return 1;
    }
    uint8_t *data = malloc(MAX_OUT);
    const size_t size = data ? fread(data, 1, MAX_OUT, file) : 0;
    fclose(file);
    LLVMFuzzerTestOneInput(data, size);
    for (size_t i = 0; i < size; i += 1 + size / CHANGES) {
        data[i] ^= (uint8_t)(1U << i % 8);
        LLVMFuzzerTestOneInput(data, size);
        data[i] ^= (uint8_t)(1U << i % 8);
    }
    free(data);
    return 0;
}

int main(int argc, char **argv) {
    int failed = 0;
    for (int i = 1; i < argc; i++) failed |= run_file(argv[i]);
    printf("%d files decoded, each also with bytes changed\n", argc - 1);
    return failed;
}
#endif
