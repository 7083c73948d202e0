/* crc32c.h - CRC-32C in pieces: bsx_crc32c_more(bsx_crc32c_more(0, a), b) is the CRC of a followed by b. */
#ifndef BSX_CRC32C_H
#define BSX_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint32_t bsx_crc32c_more(uint32_t crc, const void *data, size_t size);
/* Has the processor an instruction for it? In a virtual machine the question itself takes tens of microseconds, so that
 * whoever computes many asks once. */
bool bsx_crc32c_instruction(void);
/* The CRCs of several pieces of data; faster than one after another. instruction: as bsx_crc32c_instruction said. */
void bsx_crc32c_many(const uint8_t *const *data, const size_t *sizes, uint32_t *crcs, unsigned count, bool instruction);
/* bsx_crc32c_more by tables, on every processor. */
uint32_t bsx_crc32c_table(uint32_t crc, const void *data, size_t size);

#endif
