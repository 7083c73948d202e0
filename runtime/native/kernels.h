/* kernels.h - the loops over weights, once for every processor and once for each kind of vector instructions.
 *
 * All kinds give the same bytes. */
#ifndef BSX_KERNELS_H
#define BSX_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What int8_t levels become. */
typedef struct bsx_conversion {
    int type;           /* of bsx_dtype */
    unsigned item_bytes;
    float step;
    const void *values; /* what each becomes, by its bits as uint8_t */
    bool around;        /* write around the cache: the output is larger than that */
} bsx_conversion;

typedef struct bsx_kernels {
    const char *name;
    bool bmi2; /* streams are decoded by code for processors with these instructions */
    void (*convert)(uint8_t *out, const int8_t *levels, size_t count, const bsx_conversion *conversion);
    /* Put packed elements where the bits of the bitmap are 1, and 0 where they are 0: eight for each byte. All read up to
     * 16 bytes past the packed ones. expand_float32 converts too; NULL: not faster than one after the other. */
    void (*expand_levels)(int8_t *out, const uint8_t *bitmap, size_t bytes, const int8_t *packed);
    void (*expand_float32)(uint8_t *out, const uint8_t *bitmap, size_t bytes, const int8_t *packed,
                           const bsx_conversion *conversion);
    void (*expand_symbols)(uint16_t *out, const uint8_t *bitmap, size_t bytes, const uint16_t *packed);
    /* Copy around the cache. NULL: the processor cannot. */
    void (*copy_around)(uint8_t *out, const uint8_t *from, size_t bytes);
} bsx_kernels;

/* Kind 0 is for every processor. Returns the number of kinds that this processor can run; the last is the fastest. */
unsigned bsx_simd_levels(void);
static inline unsigned bsx_simd_best(void) { return bsx_simd_levels() - 1; }
const bsx_kernels *bsx_kernels_of(unsigned simd);

/* kernels.c */
void bsx_convert_portable(uint8_t *out, const int8_t *levels, size_t count, const bsx_conversion *conversion);
extern const bsx_kernels bsx_portable;
/* kernels_x86.c */
extern const bsx_kernels bsx_sse4, bsx_avx2, bsx_avx512;
/* kernels_neon.c */
extern const bsx_kernels bsx_neon;

/* For each byte, the shuffle that puts packed elements where its bits are 1, and 0 (by 128) elsewhere; and how many are
 * 1. */
extern const uint8_t bsx_expand_8[256][8];
extern const uint8_t bsx_expand_16[256][16];
extern const uint8_t bsx_ones[256];

#endif
