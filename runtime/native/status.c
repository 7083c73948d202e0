/* status.c - version and names. */
#include "bsx.h"

uint32_t bsx_version(void) { return BSX_VERSION; }

size_t bsx_head_size(void) { return sizeof(bsx_head); }

const char *bsx_status_name(int status) {
    static const char *const names[] = {
        "OK",         "TRUNCATED", "TRAILING_BYTES", "BAD_MAGIC", "BAD_VERSION", "BAD_LAYOUT",
        "BAD_DTYPE",  "BAD_SHAPE", "BAD_BLOCKS",     "BAD_CODE",  "BAD_STEP",    "BAD_RESERVED",
        "HEAD_CRC",   "BAD_CODEBOOK", "BAD_INDEX",   "BLOCK_CRC", "BAD_STREAM",  "BAD_ARGUMENT",
    };
    const int known = (int)(sizeof names / sizeof names[0]);
    return status >= 0 && status < known ? names[status] : "UNKNOWN";
}
