/* table.c - all the codewords in the next bits of a stream, looked up at once. */
#include <string.h>

#include "blob.h"

static bsx_entry entry_of(const bsx_table *table, const void *map, uint32_t next_bits) {
    const unsigned bytes = (unsigned)table->width * table->per_value;
    bsx_entry entry;
    memset(&entry, 0, sizeof entry);
    uint64_t window = (uint64_t)next_bits << (64 - BSX_TABLE_BITS);
    while (entry.bytes + bytes <= BSX_ENTRY_BYTES && window != 0) {
        const unsigned length = bsx_code_length(window, table->code);
        if (entry.bits + length > BSX_TABLE_BITS) break;
        const uint64_t value = bsx_code_value(window, length, table->code);
        if (value >= table->limit) break;
        entry.bytes = (uint8_t)(entry.bytes + bsx_store_value(entry.elements + entry.bytes, table, map, (uint32_t)value));
        entry.bits = (uint8_t)(entry.bits + length);
        window <<= length;
    }
    return entry;
}

void bsx_build_table(bsx_table *table, bsx_code code, uint32_t limit, uint32_t base, unsigned width,
                     unsigned per_value, const void *map) {
    table->code = code;
    table->limit = limit;
    table->longest = bsx_longest(limit, code);
    table->base = base;
    table->width = (uint8_t)width;
    table->per_value = (uint8_t)per_value;
    table->mapped = map != NULL;
    for (uint32_t i = 0; i < 1U << BSX_TABLE_BITS; i++) table->entries[i] = entry_of(table, map, i);
}
