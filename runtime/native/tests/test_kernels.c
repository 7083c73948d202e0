/* test_kernels.c - every kind of kernels gives the same bytes, at any address, and touches no others. */
#include <stdlib.h>
#include <string.h>

#include "blob.h"
#include "check.h"
#include "kernels.h"

enum { MOST = 200, GUARD = 32 };

static uint32_t random_state = 3;

static uint32_t next_random(uint32_t below) {
    random_state = random_state * 1664525U + 1013904223U;
    return (uint32_t)((uint64_t)random_state * below >> 32);
}

/* Converts `count` levels to `out + shift`; the bytes around them must stay as they are. */
static void check_convert(const bsx_kernels *k, const int8_t *levels, size_t count, const bsx_conversion *c,
                          const uint8_t *expected, size_t shift) {
    static uint64_t room[MOST + 2 * GUARD];
    uint8_t *all = (uint8_t *)room, *out = all + GUARD + shift;
    const size_t bytes = count * c->item_bytes;
    memset(room, 0xA5, sizeof room);
    k->convert(out, levels, count, c);
    CHECK_ROW(memcmp(out, expected, bytes) == 0, k->name);
    for (size_t i = 0; i < GUARD; i++) CHECK_ROW(out[bytes + i] == 0xA5 && all[shift + i] == 0xA5, k->name);
}

static void test_convert(int type, float step) {
    int8_t levels[MOST];
    int32_t all[256], wide[MOST];
    uint64_t values[256], expected[MOST];
    const unsigned item_bytes = bsx_type_bytes(type);
    for (int i = 0; i < 256; i++) all[i] = (int8_t)i;
    bsx_fill_values(all, 256, step, type, values);
    for (int i = 0; i < MOST; i++) wide[i] = levels[i] = (int8_t)next_random(256);
    bsx_fill_values(wide, MOST, step, type, expected);
    for (unsigned simd = 0; simd < bsx_simd_levels(); simd++) {
        for (size_t count = 0; count <= MOST; count++) {
            const bsx_conversion c = {type, item_bytes, step, values, count % 2 == 0};
            check_convert(bsx_kernels_of(simd), levels, count, &c, (uint8_t *)expected, count % 3 ? 0 : 1 + count % 5);
        }
    }
}

/* expand_float32 gives what expand_levels and convert give, and stores nothing else. */
static void check_expand_float32(const bsx_kernels *k, const uint8_t *bitmap, size_t bytes, const int8_t *packed,
                                 const int8_t *levels) {
    static float expected[MOST], room[MOST + 2 * GUARD];
    const bsx_conversion c = {BSX_FLOAT32, sizeof(float), 0.004F, NULL, bytes % 2 == 0};
    uint8_t *all = (uint8_t *)room, *out = all + GUARD + (bytes % 4 ? 0 : 1 + bytes % 5);
    const size_t out_bytes = 8 * bytes * sizeof(float);
    if (k->expand_float32 == NULL) return;
    bsx_convert_portable((uint8_t *)expected, levels, 8 * bytes, &c);
    memset(room, 0xA5, sizeof room);
    k->expand_float32(out, bitmap, bytes, packed, &c);
    CHECK_ROW(memcmp(out, expected, out_bytes) == 0, k->name);
    for (size_t i = 1; i <= GUARD; i++) CHECK_ROW(out[out_bytes + i - 1] == 0xA5 && *(out - i) == 0xA5, k->name);
}

/* One by one, against all kinds of expand. */
static void test_expand(void) {
    for (int round = 0; round < 300; round++) {
        uint8_t bitmap[MOST / 8];
        int8_t packed[MOST + 16], out[MOST + 16];
        uint16_t symbols[MOST + 16], wide[MOST + 16];
        const size_t bytes = next_random(sizeof bitmap + 1);
        for (size_t i = 0; i < sizeof bitmap; i++) bitmap[i] = (uint8_t)(round % 2 ? next_random(256) : 1U << next_random(8));
        for (size_t i = 0; i < MOST + 16; i++) symbols[i] = (uint16_t)(next_random(65535) + 1);
        for (size_t i = 0; i < MOST + 16; i++) packed[i] = (int8_t)(next_random(255) + 1);
        for (unsigned simd = 0; simd < bsx_simd_levels(); simd++) {
            const bsx_kernels *k = bsx_kernels_of(simd);
            out[8 * bytes] = 'x';
            wide[8 * bytes] = 'x';
            k->expand_levels(out, bitmap, bytes, packed);
            k->expand_symbols(wide, bitmap, bytes, symbols);
            CHECK_ROW(out[8 * bytes] == 'x' && wide[8 * bytes] == 'x', k->name);
            size_t taken = 0;
            for (size_t i = 0; i < 8 * bytes; i++) {
                const bool one = bitmap[i / 8] >> i % 8 & 1;
                CHECK_ROW(out[i] == (one ? packed[taken] : 0) && wide[i] == (one ? symbols[taken] : 0), k->name);
                taken += one;
            }
            check_expand_float32(k, bitmap, bytes, packed, out);
        }
    }
}

static void test_copy(void) {
    uint8_t from[MOST], out[MOST + 2 * GUARD];
    for (size_t i = 0; i < MOST; i++) from[i] = (uint8_t)next_random(256);
    for (unsigned simd = 0; simd < bsx_simd_levels(); simd++) {
        const bsx_kernels *k = bsx_kernels_of(simd);
        for (size_t bytes = 0; bytes < MOST && k->copy_around != NULL; bytes++) {
            uint8_t *at = out + bytes % GUARD;
            memset(out, 0xA5, sizeof out);
            k->copy_around(at, from, bytes);
            CHECK(memcmp(at, from, bytes) == 0 && at[bytes] == 0xA5 && (at == out || at[-1] == 0xA5));
        }
    }
}

void test_kernels(void) {
    static const int types[] = {BSX_FLOAT32, BSX_INT8, BSX_INT16, BSX_INT32, BSX_FLOAT16, BSX_FLOAT64, BSX_BFLOAT16};
    static const float steps[] = {0.004F, 1.0F, 0x1p-149F, 0x1p-30F, 0x1.234568p-20F, 0x1.FFFFFEp127F, 1000.0F};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        for (size_t j = 0; j < sizeof steps / sizeof steps[0]; j++) test_convert(types[i], steps[j]);
    }
    test_expand();
    test_copy();
}
