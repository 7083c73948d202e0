/* table.c - all the codewords in the next bits of a stream, looked up at once. */
#include "blob.h"

static void fill_entry(bsx_table *table, const uint32_t *map, uint32_t i) {
    uint8_t elements[BSX_ENTRY_BYTES + sizeof(uint32_t)] = {0};
    uint64_t window = (uint64_t)i << (64 - BSX_TABLE_BITS);
    unsigned bits = 0, bytes = 0;
    while (bytes + table->bytes <= BSX_ENTRY_BYTES && window != 0) {
        const unsigned length = bsx_code_length(window, table->code);
        if (bits + length > BSX_TABLE_BITS) break;
        const uint64_t value = bsx_code_value(window, length, table->code);
        if (value >= table->limit) break;
        bsx_store_value(elements + bytes, table, map, (uint32_t)value);
        bytes += table->bytes;
        bits += length;
        window <<= length;
    }
    memcpy(table->elements[i], elements, BSX_ENTRY_BYTES);
    table->contents[i] = (uint16_t)(bits | bytes << 8);
}

void bsx_build_table(bsx_table *table, bsx_code code, uint32_t limit, uint32_t base, unsigned bytes,
                     const uint32_t *map) {
    table->code = code;
    table->limit = limit;
    table->longest = bsx_longest(limit, code);
    table->base = base;
    table->bytes = bytes;
    table->mapped = map != NULL;
    table->bmi2 = false;
    const uint32_t zeros = table->longest > code.order ? table->longest - code.order - 1 : 0;
    if (code.family == BSX_EXP_GOLOMB) table->zeros = zeros / 2;
    else table->zeros = zeros < BSX_RICE_ESCAPE ? zeros : BSX_RICE_ESCAPE - 1;
    for (uint32_t i = 0; i < 1U << BSX_TABLE_BITS; i++) fill_entry(table, map, i);
}
