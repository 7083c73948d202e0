/* files.h - the content of a file, in memory of its own or mapped. */
#ifndef BSX_FILES_H
#define BSX_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Filled by bsx_file_open; to be closed after that, whether or not it succeeded. All zeros: closed. */
typedef struct bsx_file {
    FILE *stream;
    uint64_t size;
    const uint8_t *data; /* of `size` bytes, once read or mapped */
    bool mapped, no_memory; /* no_memory: that is why reading or mapping failed */
} bsx_file;

bool bsx_is_directory(const char *path);

/* These return NULL, or why they failed, in the system's words. */
const char *bsx_file_open(bsx_file *file, const char *path);
/* Read all of it to memory from malloc. */
const char *bsx_file_read(bsx_file *file);
/* Map it, read-only; where there are no mappings: read it. */
const char *bsx_file_map(bsx_file *file);

/* Let the system drop the pages of a mapping: they are read again if they are needed again. */
void bsx_file_release(const bsx_file *file, uint64_t offset, uint64_t bytes);
void bsx_file_close(bsx_file *file);

/* Memory of zeros for weights, page by page as it is used, on huge pages where the system has them; NULL: there is none.
 * To be freed by bsx_free_pages. */
void *bsx_allocate_pages(size_t bytes);
void bsx_free_pages(void *pages, size_t bytes);

#endif
