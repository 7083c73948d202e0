/* lookup.h - from levels to symbols, and from pairs of symbols to ranks. */
#ifndef BSX_LOOKUP_H
#define BSX_LOOKUP_H

#include "blob.h"

#define BSX_NO_SYMBOL UINT32_MAX
#define BSX_NO_LEVEL INT32_MIN /* beyond +-2^24: never a level */

typedef struct bsx_slot {
    int32_t level;
    uint32_t symbol;
} bsx_slot;

/* Levels that lie close together are looked up by their distance from the lowest one in `near`, where one entry more is
 * for those beyond; others by open addressing in `far`, which is at most half full. */
typedef struct bsx_lookup {
    uint32_t symbols;
    int32_t zero;  /* the level of symbol 0 */
    int32_t least; /* the lowest level */
    uint32_t near_count; /* entries of near but the last; 0: the levels do not lie close together */
    unsigned far_log2;   /* entries of far */
    bool paired;
    uint16_t ranks[(BSX_MAX_PAIRED - 1) * (BSX_MAX_PAIRED - 1)]; /* of symbols a, b >= 1 at (a-1) * (symbols-1) + b-1 */
    union {
        uint32_t near[2]; /* symbols */
        bsx_slot far;
    } entries[];
} bsx_lookup;

static inline size_t bsx_lookup_place(const bsx_lookup *lookup, int32_t level) {
    const size_t mask = ((size_t)1 << lookup->far_log2) - 1;
    size_t at = (uint32_t)level * UINT32_C(0x9E3779B1) >> (32 - lookup->far_log2);
    while (lookup->entries[at].far.level != level && lookup->entries[at].far.level != BSX_NO_LEVEL) at = (at + 1) & mask;
    return at;
}

/* The symbol of a level, or BSX_NO_SYMBOL. */
static inline uint32_t bsx_symbol_of(const bsx_lookup *lookup, int32_t level) {
    if (lookup->near_count) {
        const uint32_t distance = (uint32_t)level - (uint32_t)lookup->least;
        return distance >= lookup->near_count ? BSX_NO_SYMBOL : lookup->entries[distance / 2].near[distance % 2];
    }
    return lookup->entries[bsx_lookup_place(lookup, level)].far.symbol;
}

/* The symbols of some levels. Returns the first one that has none, or count. */
uint32_t bsx_symbols_of(const bsx_lookup *lookup, const int32_t *levels, uint32_t count, uint32_t *symbols);

static inline uint32_t bsx_pair_rank(const bsx_lookup *lookup, uint32_t a, uint32_t b) {
    return lookup->ranks[(a - 1) * (lookup->symbols - 1) + b - 1];
}

#endif
