/* vectors.c - what blobs decode to, as lines to compare: `vectors FILE...` prints, for each file, the name of its status,
 * after an error of a block that block, and else its items and, of a coded blob, its levels. Items are in hexadecimal,
 * byte by byte, each with how often it follows itself: 0000803e*3. tests/expected_lines.py prints what is expected. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bsx.h"

static void *exactly(uint64_t size) {
    void *memory = size <= SIZE_MAX ? malloc((size_t)size + (size == 0)) : NULL;
    if (memory == NULL) abort();
    return memory;
}

static void print_items(const uint8_t *items, size_t count, size_t item_bytes) {
    for (size_t i = 0, next; i < count; i = next) {
        const uint8_t *item = items + i * item_bytes;
        for (next = i + 1; next < count && memcmp(items + next * item_bytes, item, item_bytes) == 0;) next++;
        printf(" ");
        for (size_t byte = 0; byte < item_bytes; byte++) printf("%02x", (unsigned)item[byte]);
        printf("*%zu", next - i);
    }
}

/* Decode a parsed blob to `type` and print its items, or what is wrong with it. Returns whether it is good. */
static bool print_as(const uint8_t *blob, size_t size, const bsx_head *head, int type, size_t item_bytes) {
    const size_t workspace_bytes = (size_t)head->workspace_bytes, scratch_bytes = (size_t)head->scratch_bytes;
    void *workspace = exactly(head->workspace_bytes), *scratch = exactly(head->scratch_bytes);
    uint8_t *out = exactly(head->weights * item_bytes);
    const size_t out_bytes = (size_t)head->weights * item_bytes;
    uint64_t bad = 0;
    bsx_status status = bsx_prepare(blob, size, head, type, workspace, workspace_bytes);
    if (status == BSX_OK) {
        status = bsx_decode(blob, size, head, workspace, workspace_bytes, 0, head->blocks, 0, out, out_bytes, scratch,
                            scratch_bytes, &bad);
    }
    printf(" %s", bsx_status_name(status));
    if (status == BSX_OK) print_items(out, (size_t)head->weights, item_bytes);
    else printf(" block %" PRIu64, bad);
    free(out);
    free(scratch);
    free(workspace);
    return status == BSX_OK;
}

static int print_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        fprintf(stderr, "%s: cannot be read\n", path);
        return 1;
    }
    const size_t size = (size_t)ftell(file);
    uint8_t *blob = exactly(size);
    rewind(file);
    const int failed = fread(blob, 1, size, file) != size;
    fclose(file);
    bsx_head head;
    const bsx_status status = bsx_parse(blob, size, &head);
    printf("%s", strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
    if (status != BSX_OK) {
        printf(" %s", bsx_status_name(status));
    } else {
        const bool good = print_as(blob, size, &head, head.dtype, head.item_bytes);
        if (good && head.layout != BSX_RAW) print_as(blob, size, &head, BSX_INT32, sizeof(int32_t));
    }
    printf("\n");
    free(blob);
    return failed;
}

int main(int argc, char **argv) {
    int failed = 0;
    for (int i = 1; i < argc; i++) failed |= print_file(argv[i]);
    return failed;
}
