/* blob_writer.c - see blob_writer.h. */
#include "blob_writer.h"

#include <stdlib.h>
#include <string.h>

uint32_t slow_crc32c(const uint8_t *data, size_t size) {
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78 : crc >> 1;
    }
    return ~crc;
}

size_t pack_bits(const char *text, uint8_t *out) {
    size_t bits = 0;
    for (; *text; text++) {
        if (*text == ' ') continue;
        if (bits % 8 == 0) out[bits / 8] = 0;
        if (*text == '1') out[bits / 8] = (uint8_t)(out[bits / 8] | 0x80 >> bits % 8);
        bits++;
    }
    return (bits + 7) / 8;
}

static uint8_t *put(uint8_t *p, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) *p++ = (uint8_t)(value >> 8 * i);
    return p;
}

void seal_head(uint8_t *blob, size_t head_bytes) {
    memset(blob + 40, 0, 4);
    put(blob + 40, slow_crc32c(blob, head_bytes), 4);
}

static uint8_t *put_fixed(uint8_t *p, const blob_text *text, size_t codebook_bytes, size_t payload_bytes) {
    uint32_t step;
    memcpy(&step, &text->step, 4);
    memcpy(p, "BSXB\0\0", 6);
    p += 6;
    const uint8_t codes[6] = {text->layout,     text->dtype,    text->ndim,
                              text->level_code, text->run_code, text->codebook_code};
    memcpy(p, codes, 6);
    p = put(p + 6, step, 4);
    p = put(p, text->symbols, 4);
    p = put(p, text->block_rows, 4);
    p = put(p, text->block_cols, 4);
    p = put(p, codebook_bytes, 4);
    p = put(p, payload_bytes, 8);
    p = put(p, 0, 4);
    p = put(p, text->index_width, 1);
    p = put(p, text->pairs, 1);
    p = put(p, 0, 2);
    for (unsigned i = 0; i < text->ndim; i++) p = put(p, text->dims[i], 8);
    return p;
}

uint8_t *write_blob(const blob_text *text, size_t *size) {
    static uint8_t codebook[1 << 16], index[256], payload[1 << 16], head[1 << 17];
    const size_t codebook_bytes = pack_bits(text->codebook ? text->codebook : "", codebook);
    uint8_t *entry = index, *data = payload;
    for (unsigned i = 0; i < text->block_count; i++) {
        const block_text *block = &text->blocks[i];
        const size_t runs = pack_bits(block->runs ? block->runs : "", data);
        const size_t levels = pack_bits(block->levels, data + runs);
        if (text->layout == 2) entry = put(entry, runs, text->index_width);
        entry = put(entry, levels, text->index_width);
        if (text->layout == 2) entry = put(entry, block->coded, text->index_width);
        entry = put(entry, slow_crc32c(data, runs + levels), 4);
        data += runs + levels;
    }
    uint8_t *p = put_fixed(head, text, codebook_bytes, (size_t)(data - payload));
    memcpy(p, codebook, codebook_bytes);
    p += codebook_bytes;
    memcpy(p, index, (size_t)(entry - index));
    p += entry - index;
    while ((p - head) % 64) *p++ = 0;
    const size_t head_bytes = (size_t)(p - head);
    seal_head(head, head_bytes);
    *size = head_bytes + (size_t)(data - payload);
    uint8_t *blob = malloc(*size);
    if (blob == NULL) abort();
    memcpy(blob, head, head_bytes);
    memcpy(blob + head_bytes, payload, (size_t)(data - payload));
    return blob;
}
