/* test_crc32c.c - both ways of computing it against known answers and against each other. */
#include <stdlib.h>
#include <string.h>

#include "blob_writer.h"
#include "bsx.h"
#include "check.h"
#include "crc32c.h"

/* Of several pieces at once, of different lengths. */
static void test_many(const uint8_t *bytes, bool instruction) {
    static const size_t sizes[9] = {100, 97, 0, 33, 8, 9, 200, 7, 64};
    const uint8_t *data[9];
    uint32_t crcs[9];
    for (unsigned i = 0; i < 9; i++) data[i] = bytes + 3 * i;
    for (unsigned count = 0; count <= 9; count++) {
        for (unsigned first = 0; first + count <= 9; first++) {
            bsx_crc32c_many(data + first, sizes + first, crcs, count, instruction);
            for (unsigned i = 0; i < count; i++) CHECK(crcs[i] == slow_crc32c(data[first + i], sizes[first + i]));
        }
    }
}

void test_crc32c(void) {
    uint8_t bytes[300];
    CHECK(bsx_crc32c("123456789", 9) == 0xE3069283);
    CHECK(bsx_crc32c_table(0, "123456789", 9) == 0xE3069283);
    CHECK(bsx_crc32c(NULL, 0) == 0);
    memset(bytes, 0, sizeof bytes); /* the vectors of RFC 3720, B.4 */
    CHECK(bsx_crc32c(bytes, 32) == 0x8A9136AA && bsx_crc32c_table(0, bytes, 32) == 0x8A9136AA);
    memset(bytes, 0xFF, sizeof bytes);
    CHECK(bsx_crc32c(bytes, 32) == 0x62A8AB43 && bsx_crc32c_table(0, bytes, 32) == 0x62A8AB43);
    for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)i;
    CHECK(bsx_crc32c(bytes, 32) == 0x46DD794E && bsx_crc32c_table(0, bytes, 32) == 0x46DD794E);
    for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 167 + (i >> 3));
    test_many(bytes, false);
    if (bsx_crc32c_instruction()) test_many(bytes, true);
    for (size_t start = 0; start < 9; start++) {
        for (size_t size = 0; start + size < sizeof bytes; size++) {
            const uint32_t expected = slow_crc32c(bytes + start, size);
            CHECK(bsx_crc32c(bytes + start, size) == expected);
            CHECK(bsx_crc32c_table(0, bytes + start, size) == expected);
            CHECK(bsx_crc32c_more(bsx_crc32c_more(0, bytes + start, size / 3), bytes + start + size / 3,
                                  size - size / 3) == expected);
        }
    }
}
