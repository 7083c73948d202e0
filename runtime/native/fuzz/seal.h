/* seal.h - the right CRCs for any bytes that could be a blob. */
#ifndef BSX_FUZZ_SEAL_H
#define BSX_FUZZ_SEAL_H

#include "../blob.h"
#include "target.h"

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
        demand(bsx_read_block(blob, &head, i, &block)); /* bsx_parse has just read it */
        const uint64_t bytes = bsx_block_bytes(&block);
        store_le32(blob + head.index_offset + (i + 1) * entry_bytes - 4, bsx_crc32c(blob + offset, (size_t)bytes));
        offset += bytes;
    }
    seal_head(blob, &head);
}

#endif
