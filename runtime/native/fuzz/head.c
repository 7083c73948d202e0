/* head.c - fuzz target: any bytes as a blob's head, as they are and with the right CRC. */
#include <string.h>

#include "../blob.h"
#include "target.h"

static void store_le32(uint8_t *p, uint32_t x) {
    for (unsigned i = 0; i < 4; i++) p[i] = (uint8_t)(x >> 8 * i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bsx_head head;
    uint8_t *blob = exactly(size);
    memcpy(blob, data, size);
    bsx_status status = bsx_parse(blob, size, &head);
    if (status == BSX_HEAD_CRC) { /* head_bytes is known by then */
        store_le32(blob + 40, 0);
        store_le32(blob + 40, bsx_crc32c(blob, (size_t)head.head_bytes));
        status = bsx_parse(blob, size, &head);
        demand(status != BSX_HEAD_CRC);
    }
    if (status == BSX_OK) {
        demand(head.head_bytes + head.payload_bytes == size && head.head_bytes % 64 == 0);
        demand(head.blocks >= 1 && head.blocks <= size && head.weights <= 6554 * (uint64_t)size);
    }
    free(blob);
    return 0;
}
