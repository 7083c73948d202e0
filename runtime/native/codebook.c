/* codebook.c - from symbols to levels (section 4). */
#include "blob.h"

/* z(l) = 2|l| - (1 if l > 0 else 0): 0, +1, -1, +2, -2 ... */
static int32_t level_of(int64_t z) { return (int32_t)(z & 1 ? (z + 1) / 2 : -(z / 2)); }

/* The classes of the symbols 1 to symbols - 1, for pairs. */
static bool read_classes(bsx_bits *bits, uint32_t count, uint8_t *classes) {
    const bsx_code code = {BSX_EXP_GOLOMB, 0};
    uint64_t last = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t more;
        if (!bsx_read_code(bits, code, BSX_MAX_CLASS - last, &more)) return false;
        last += more;
        if (classes) classes[i] = (uint8_t)last;
    }
    return true;
}

/* The levels and classes, each only stored if there is a place for them; least and greatest level. */
static bool read_all(const uint8_t *blob, const bsx_head *head, int32_t *levels, uint8_t *classes, int32_t *range) {
    const bsx_code code = bsx_code_of(head->codebook_code);
    bsx_bits bits = {blob + head->codebook_offset, head->codebook_bytes, 0};
    int64_t z = 0;
    for (uint32_t i = 0; i < head->symbols; i++) {
        uint64_t s;
        if (!bsx_read_code(&bits, code, UINT64_C(4) * BSX_MAX_LEVEL, &s)) return false;
        z += s & 1 ? (int64_t)(s / 2 + 1) : -(int64_t)(s / 2);
        if (z < 0 || z > 2 * BSX_MAX_LEVEL) return false;
        const int32_t level = level_of(z);
        if (levels) levels[i] = level;
        if (i == 0 || level < range[0]) range[0] = level;
        if (i == 0 || level > range[1]) range[1] = level;
    }
    return (!head->pairs || read_classes(&bits, head->symbols - 1, classes)) && bsx_at_end(&bits);
}

bool bsx_read_codebook(const uint8_t *blob, const bsx_head *head, int32_t *levels, uint8_t *classes) {
    int32_t range[2];
    return read_all(blob, head, levels, classes, range);
}

bool bsx_check_codebook(const uint8_t *blob, bsx_head *head) {
    int32_t range[2] = {0, 0};
    const bool good = read_all(blob, head, NULL, NULL, range);
    head->least_level = range[0];
    head->greatest_level = range[1];
    return good;
}
