/* sha256.h - SHA-256 (FIPS 180-4), of which the manifest has one for everything. */
#ifndef BSX_SHA256_H
#define BSX_SHA256_H

#include <stddef.h>

#define BSX_HEX_BYTES 64U /* of a digest in hexadecimal */

/* The digest of size bytes in lower-case hexadecimal, and a zero. NULL is allowed if size is 0. */
void bsx_sha256_hex(const void *data, size_t size, char hex[BSX_HEX_BYTES + 1]);

#endif
