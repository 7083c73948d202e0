/* count.c - how often values occur. */
#include "bsx.h"

bsx_status bsx_count(const void *values, size_t count, uint32_t mask, uint32_t least, unsigned shift, size_t bins,
                     uint32_t *tables, size_t tables_count) {
    const uint32_t *const words = values;
    const size_t last = bins ? tables_count / bins - 1 : 0; /* of the tables, a power of two of them */
    if (values == NULL || tables == NULL || bins == 0 || tables_count < bins || shift > 31) return BSX_BAD_ARGUMENT;
    if (tables_count % bins != 0 || (last & (last + 1)) != 0) return BSX_BAD_ARGUMENT;
    for (size_t i = 0; i < count; i++) {
        const uint32_t bin = ((words[i] & mask) - least) >> shift;
        if (bin >= bins) return BSX_BAD_ARGUMENT;
        tables[(i & last) * bins + bin]++;
    }
    return BSX_OK;
}
