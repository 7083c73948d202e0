/* rows.c - fuzz target: any bytes as a blob, as they are and with the right CRCs, decoded whole and in ranges of blocks,
 * which must give the same. */
#include <string.h>

#include "../blob.h"
#include "seal.h"
#include "target.h"

#define MOST_OUT (1U << 22) /* bytes: 6554 weights can be declared in a byte (section 9) */

/* A prepared blob. */
typedef struct opened {
    const uint8_t *blob;
    size_t size;
    const bsx_head *head;
    uint8_t *workspace, *scratch;
    unsigned item_bytes;
} opened;

/* Where block i starts, in weights; the tensor's end for i = blocks. */
static uint64_t first_weight(const opened *o, uint64_t i) {
    const bsx_grid grid = bsx_head_grid(o->head);
    return i < o->head->blocks ? bsx_grid_first(&grid, i) : o->head->weights;
}

/* Decode some blocks; out is NULL after an error. */
static bsx_status decode(const opened *o, uint64_t first, uint64_t count, uint8_t **out) {
    const size_t bytes = (size_t)(first_weight(o, first + count) - first_weight(o, first)) * o->item_bytes;
    uint64_t bad = first;
    *out = exactly(bytes);
    const bsx_status status = bsx_decode(o->blob, o->size, o->head, o->workspace, o->head->workspace_bytes, first, count,
                                         0, *out, bytes, o->scratch, o->head->scratch_bytes, &bad);
    demand(bad >= first && bad < first + count);
    if (status == BSX_OK) return status;
    free(*out);
    *out = NULL;
    return status;
}

/* The whole blob, and then ranges of one, two, ... blocks. */
static void decode_ranges(const opened *o) {
    uint8_t *whole, *part;
    const bsx_status status = decode(o, 0, o->head->blocks, &whole);
    for (uint64_t first = 0, count = 1; first + count <= o->head->blocks; first += count, count = count % 7 + 1) {
        const bsx_status of_part = decode(o, first, count, &part);
        demand(status != BSX_OK || of_part == BSX_OK);
        const uint64_t begin = first_weight(o, first) * o->item_bytes, end = first_weight(o, first + count) * o->item_bytes;
        if (status == BSX_OK) demand(memcmp(whole + begin, part, (size_t)(end - begin)) == 0);
        free(part);
    }
    free(whole);
}

static void open_as(const uint8_t *blob, size_t size, const bsx_head *head, int type) {
    const unsigned item_bytes = type == head->dtype ? head->item_bytes : bsx_type_bytes(type);
    opened o = {blob, size, head, exactly((size_t)head->workspace_bytes), exactly((size_t)head->scratch_bytes), item_bytes};
    if (bsx_prepare(blob, size, head, type, o.workspace, head->workspace_bytes) == BSX_OK) decode_ranges(&o);
    free(o.workspace);
    free(o.scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *blob = exactly(size);
    memcpy(blob, data, size);
    for (int sealed = 0; sealed < 2; sealed++) {
        bsx_head head;
        if (bsx_parse(blob, size, &head) == BSX_OK && head.weights * 16 <= MOST_OUT) {
            open_as(blob, size, &head, head.dtype);
            if (head.layout != BSX_RAW) open_as(blob, size, &head, BSX_INT8);
        }
        seal(blob, size);
    }
    free(blob);
    return 0;
}
