/* table.c - all the codewords in the next bits of a stream, looked up at once. */
#include <string.h>

#include "bits.h"
#include "blob.h"

static bsx_entry entry_of(uint32_t next_bits, unsigned order, uint32_t limit) {
    bsx_entry entry;
    memset(&entry, 0, sizeof entry);
    uint64_t window = (uint64_t)next_bits << (64 - BSX_TABLE_BITS);
    while (entry.count < BSX_TABLE_SYMBOLS && window != 0) {
        const unsigned length = bsx_eg_length(window, order);
        if (entry.bits + length > BSX_TABLE_BITS) break;
        const uint64_t value = bsx_eg_value(window, length, order);
        if (value >= limit) break;
        entry.values[entry.count++] = (uint16_t)value;
        entry.bits = (uint8_t)(entry.bits + length);
        window <<= length;
    }
    return entry;
}

void bsx_build_table(bsx_table *table, unsigned order, uint32_t limit) {
    table->order = order;
    table->limit = limit;
    table->longest = limit ? bsx_eg_bits(limit - 1, order) : 1;
    for (uint32_t i = 0; i < 1U << BSX_TABLE_BITS; i++) table->entries[i] = entry_of(i, order, limit);
}
