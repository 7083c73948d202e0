/* target.h - what the fuzz targets share. Each defines LLVMFuzzerTestOneInput of libFuzzer. */
#ifndef BSX_FUZZ_TARGET_H
#define BSX_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Memory of exactly the size asked for, so that a sanitizer sees the first byte beyond it. */
static inline void *exactly(size_t size) {
    void *memory = malloc(size + (size == 0));
    if (memory == NULL) abort();
    return memory;
}

/* A rule that must hold whatever the bytes are. */
static inline void demand(int rule) {
    if (!rule) abort();
}

#endif
