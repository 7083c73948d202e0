/* package.h - what the parts of the package reader share: errors, the manifest, an opened package. */
#ifndef BSX_PACKAGE_PARTS_H
#define BSX_PACKAGE_PARTS_H

#include <stdbool.h>

#include "bsx_package.h"
#include "files.h"
#include "sha256.h"

#define BSX_MANIFEST "bsexport.json"
#define BSX_WEIGHTS "weights.bsx"
#define BSX_AGAIN "copy the package again" /* what to do about most errors */

/* ---- errors.c ---- */

#if defined(__GNUC__)
#define BSX_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define BSX_PRINTF(text, first)
#endif

/* Fill the error, if there is one, by a format of printf; returns the code. */
bsx_error_code bsx_fail(bsx_error *error, bsx_error_code code, const char *format, ...) BSX_PRINTF(3, 4);
/* Empty the error, if there is one; returns BSX_ERROR_NONE. */
bsx_error_code bsx_succeed(bsx_error *error);

#define BSX_PRINTABLE_BYTES 256U

/* A text from outside for a message: on one line, control characters as \xNN, cut if it is long. Returns out. */
const char *bsx_print(const char *text, size_t size, char out[BSX_PRINTABLE_BYTES]);
const char *bsx_print_name(const char *name, char out[BSX_PRINTABLE_BYTES]);

/* ---- manifest.c: section 7 ---- */

#define BSX_MAX_DIMS 8U

/* What the manifest says of a tensor. */
typedef struct bsx_entry {
    const char *json_name, *json_sha256; /* strings of the manifest */
    const char *name;
    uint64_t offset, bytes, arena_offset;
    uint64_t dims[BSX_MAX_DIMS]; /* the first of them */
    uint64_t ndim;
    unsigned dtype;
} bsx_entry;

typedef struct bsx_manifest {
    const char *path;      /* of the file, for messages */
    const char *json;      /* its object */
    const char *json_files; /* the object `files` in it */
    bsx_entry *tensors;
    bsx_entry **by_name; /* sorted */
    char *names;
    size_t count;
    uint64_t arena_bytes;
} bsx_manifest;

/* Check the content of a manifest but for what only the blobs can tell. Content and path must stay as long as it is used.
 * To be freed whether or not it succeeded. */
bsx_error_code bsx_read_manifest(bsx_manifest *manifest, const char *content, size_t size, const char *path,
                                 bsx_error *error);
void bsx_free_manifest(bsx_manifest *manifest);

/* Bytes that weights.bsx must have. */
uint64_t bsx_weights_bytes(const bsx_manifest *manifest);
/* Are types, shapes, arena offsets and arena size those of the heads? heads: one for each tensor. */
bsx_error_code bsx_check_heads(const bsx_manifest *manifest, const bsx_head *heads, bsx_error *error);
/* The word for a dtype of section 2. */
const char *bsx_dtype_name(unsigned dtype);
/* The next multiple of 64, where a blob or a tensor of the arena may start. */
uint64_t bsx_next_place(uint64_t offset);

/* ---- package.c ---- */

struct bsx_package {
    char *directory;
    char *manifest_path, *weights_path;
    bsx_file manifest_file, weights;
    bsx_manifest manifest;
    bsx_head *heads; /* of the tensors */
    void *arena;     /* all of them decoded, once a session has needed that */
};

/* Bytes of the arena as memory. */
static inline size_t bsx_arena_size(const bsx_package *package) { return (size_t)package->manifest.arena_bytes; }

/* Read another file of the package, its size and sha256 checked; to be closed whether or not it succeeded. */
bsx_error_code bsx_package_read(const bsx_package *package, const char *name, bsx_file *file, bsx_error *error);

#endif
