/* lookup.c - see lookup.h. */
#include "lookup.h"

#define NEAR_LOG2 3U /* near has room for so many times as many entries as far */

/* Entries of far: twice the symbols, at least 16. */
static unsigned log2_of(size_t symbols) {
    unsigned log2 = 4;
    while ((size_t)1 << log2 < 2 * symbols) log2++;
    return log2;
}

size_t bsx_lookup_bytes(size_t symbols) {
    if (symbols < 1 || symbols > BSX_MAX_SYMBOLS) return 0;
    return sizeof(bsx_lookup) + ((size_t)1 << (log2_of(symbols) + NEAR_LOG2 - 1)) * sizeof(bsx_slot) + BSX_ALIGNMENT;
}

/* Enter the levels. False: one is there twice. */
static bool enter(bsx_lookup *lookup, const int32_t *codebook) {
    const size_t used = lookup->near_count ? lookup->near_count / 2 + 1 : (size_t)1 << lookup->far_log2;
    for (size_t i = 0; i < used; i++) {
        if (lookup->near_count) lookup->entries[i].near[0] = lookup->entries[i].near[1] = BSX_NO_SYMBOL;
        else lookup->entries[i].far = (bsx_slot){BSX_NO_LEVEL, BSX_NO_SYMBOL};
    }
    for (uint32_t i = 0; i < lookup->symbols; i++) {
        const size_t distance = (size_t)((int64_t)codebook[i] - lookup->least);
        if (bsx_symbol_of(lookup, codebook[i]) != BSX_NO_SYMBOL) return false;
        if (lookup->near_count) lookup->entries[distance / 2].near[distance % 2] = i;
        else lookup->entries[bsx_lookup_place(lookup, codebook[i])].far = (bsx_slot){codebook[i], i};
    }
    return true;
}

uint32_t bsx_symbols_of(const bsx_lookup *lookup, const int32_t *levels, uint32_t count, uint32_t *symbols) {
    const uint32_t *const near = (const uint32_t *)(const void *)lookup->entries;
    const uint32_t least = (uint32_t)lookup->least, none = lookup->near_count;
    uint32_t all = 0;
    for (uint32_t i = 0; i < count; i++) { /* without branches but for the choice, which is always the same */
        const uint32_t distance = (uint32_t)levels[i] - least;
        symbols[i] = none ? near[distance < none ? distance : none] : bsx_symbol_of(lookup, levels[i]);
        all |= symbols[i];
    }
    if (all < BSX_MAX_SYMBOLS) return count;
    uint32_t good = 0;
    while (symbols[good] != BSX_NO_SYMBOL) good++;
    return good;
}

static bool enter_pairs(bsx_lookup *lookup, const uint8_t *classes) {
    uint8_t first[(BSX_MAX_PAIRED - 1) * (BSX_MAX_PAIRED - 1)], second[(BSX_MAX_PAIRED - 1) * (BSX_MAX_PAIRED - 1)];
    const uint32_t n = lookup->symbols - 1;
    if (lookup->symbols < BSX_MIN_PAIRED || lookup->symbols > BSX_MAX_PAIRED) return false;
    for (uint32_t i = 0; i < n; i++) {
        if (classes[i] > BSX_MAX_CLASS || (i > 0 && classes[i] < classes[i - 1])) return false;
    }
    bsx_rank_pairs(classes, n, first, second);
    for (uint32_t rank = 0; rank < n * n; rank++) lookup->ranks[first[rank] * n + second[rank]] = (uint16_t)rank;
    return true;
}

bsx_status bsx_lookup_prepare(const int32_t *codebook, size_t symbols, const uint8_t *classes, void *lookup,
                              size_t lookup_bytes) {
    const size_t needed = bsx_lookup_bytes(symbols);
    if (codebook == NULL || lookup == NULL || needed == 0 || lookup_bytes < needed) return BSX_BAD_ARGUMENT;
    bsx_lookup *table = bsx_align(lookup);
    int32_t least = codebook[0], greatest = codebook[0];
    for (size_t i = 0; i < symbols; i++) {
        if (codebook[i] < -BSX_MAX_LEVEL || codebook[i] > BSX_MAX_LEVEL) return BSX_BAD_CODEBOOK;
        if (codebook[i] < least) least = codebook[i];
        if (codebook[i] > greatest) greatest = codebook[i];
    }
    const uint32_t span = (uint32_t)(greatest - least) + 1;
    table->symbols = (uint32_t)symbols;
    table->zero = codebook[0];
    table->least = least;
    table->far_log2 = log2_of(symbols);
    table->near_count = span >> (table->far_log2 + NEAR_LOG2) == 0 ? span : 0;
    table->paired = classes != NULL;
    if (!enter(table, codebook) || (classes && !enter_pairs(table, classes))) return BSX_BAD_CODEBOOK;
    return BSX_OK;
}
