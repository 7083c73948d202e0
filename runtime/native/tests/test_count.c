/* test_count.c - histograms of values. */
#include <stdint.h>
#include <string.h>

#include "bsx.h"
#include "check.h"

static void test_levels(void) {
    static const int32_t levels[] = {0, -2, 3, 0, 0, -2, 3, 0, 1};
    static const uint32_t expected[] = {2, 0, 4, 1, 0, 2};
    for (size_t tables = 1; tables <= 8; tables *= 2) {
        uint32_t counts[8 * 6] = {0};
        CHECK(bsx_count(levels, 9, UINT32_MAX, (uint32_t)-2, 0, 6, counts, tables * 6) == BSX_OK);
        for (size_t bin = 0; bin < 6; bin++) {
            uint32_t sum = 0;
            for (size_t table = 0; table < tables; table++) sum += counts[table * 6 + bin];
            CHECK(sum == expected[bin]);
        }
    }
}

static void test_magnitudes(void) {
    static const float weights[] = {1.0F, -1.0F, 0.0F, -0.0F, 2.0F};
    static uint32_t counts[1 << 16];
    CHECK(bsx_count(weights, 5, 0x7FFFFFFF, 0, 15, 1 << 16, counts, 1 << 16) == BSX_OK);
    CHECK(counts[0] == 2);
    CHECK(counts[0x3F800000 >> 15] == 2);
    CHECK(counts[0x40000000 >> 15] == 1);
    CHECK(bsx_count(weights, 5, 0x7FFFFFFF, 0, 15, 1 << 16, counts, 1 << 16) == BSX_OK); /* added to */
    CHECK(counts[0] == 4);
}

static void test_refusals(void) {
    static const uint32_t values[] = {5, 6};
    uint32_t counts[8] = {0};
    CHECK(bsx_count(values, 2, UINT32_MAX, 5, 0, 2, counts, 2) == BSX_OK);
    CHECK(bsx_count(values, 2, UINT32_MAX, 6, 0, 2, counts, 2) == BSX_BAD_ARGUMENT); /* one below the first bin */
    CHECK(bsx_count(values, 2, UINT32_MAX, 5, 0, 1, counts, 2) == BSX_BAD_ARGUMENT); /* one past the last */
    CHECK(counts[2] == 0);
    CHECK(bsx_count(values, 2, UINT32_MAX, 5, 32, 2, counts, 2) == BSX_BAD_ARGUMENT);
    CHECK(bsx_count(values, 2, UINT32_MAX, 5, 0, 0, counts, 2) == BSX_BAD_ARGUMENT);
    CHECK(bsx_count(values, 2, UINT32_MAX, 5, 0, 2, counts, 0) == BSX_BAD_ARGUMENT);
    CHECK(bsx_count(values, 2, UINT32_MAX, 5, 0, 2, counts, 3) == BSX_BAD_ARGUMENT); /* no whole tables */
    CHECK(bsx_count(values, 2, UINT32_MAX, 5, 0, 2, counts, 6) == BSX_BAD_ARGUMENT); /* three of them */
    CHECK(bsx_count(NULL, 2, UINT32_MAX, 5, 0, 2, counts, 2) == BSX_BAD_ARGUMENT);
    CHECK(bsx_count(values, 2, UINT32_MAX, 5, 0, 2, NULL, 2) == BSX_BAD_ARGUMENT);
    CHECK(bsx_count(values, 0, UINT32_MAX, 5, 0, 2, counts, 2) == BSX_OK);
}

void test_count(void) {
    test_levels();
    test_magnitudes();
    test_refusals();
}
