/* bsx_package.h - open a bsexport package (docs/format.md, version 0), decode its tensors, make an onnxruntime session of
 * it. docs/c-api.md explains each function; bsx.h is the codec below it.
 *
 * Whatever the bytes of a package are, nothing is read or written outside its files' bytes and the buffers that were
 * passed in, and no memory is taken on the word of a number before it has been checked against the bytes that are there.
 * No function has mutable global state, but that bsx_create_session makes the operators known once for each onnxruntime
 * (bsx_ops.h). A package may be read by any number of threads at once, but for bsx_create_session and bsx_package_close.
 * weights.bsx must stay as it is while the package is open: cutting a mapped file short ends the process.
 */
#ifndef BSX_PACKAGE_H
#define BSX_PACKAGE_H

#include <stddef.h>
#include <stdint.h>

#include "bsx.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What went wrong. The numbers never change. */
typedef enum bsx_error_code {
    BSX_ERROR_NONE = 0,
    BSX_ERROR_ARGUMENT = 1,           /* the caller's: a NULL, an index, a buffer's size, a mode */
    BSX_ERROR_MEMORY = 2,             /* the system gives no more */
    BSX_ERROR_FILE = 3,               /* a file cannot be opened or read */
    BSX_ERROR_NO_PACKAGE = 4,         /* no such directory, or its bsexport.json is not of bsexport */
    BSX_ERROR_VERSION = 5,            /* a package of another format version */
    BSX_ERROR_MANIFEST = 6,           /* the manifest was changed, or contradicts itself or the blobs */
    BSX_ERROR_DAMAGED = 7,            /* a file has not the size or the sha256 that the manifest says */
    BSX_ERROR_BLOB = 8,               /* a blob breaks a rule of the format: bsx_error.status says which */
    BSX_ERROR_ONNXRUNTIME = 9,        /* onnxruntime refused */
    BSX_ERROR_ONNXRUNTIME_VERSION = 10 /* this onnxruntime is older than 1.31, which would copy the weights */
} bsx_error_code;

enum { BSX_MESSAGE_BYTES = 1024 };

typedef struct bsx_error {
    bsx_error_code code;
    bsx_status status;               /* with BSX_ERROR_BLOB, else BSX_OK */
    char message[BSX_MESSAGE_BYTES]; /* one line: where, what, and what to do; empty after BSX_ERROR_NONE */
} bsx_error;

/* The name of a code without "BSX_ERROR_", "UNKNOWN" for other numbers. Never NULL. */
BSX_API const char *bsx_error_name(int code);

/* ---- packages ---- */

typedef struct bsx_package bsx_package;

/* Open the package in a directory. The manifest is checked whole, and each blob's head and CRC; the other files are not
 * looked at before they are used. *package is NULL after an error. */
BSX_API bsx_error_code bsx_package_open(const char *directory, bsx_package **package, bsx_error *error);

/* Close it, after the sessions that were made of it have been released. NULL is allowed. */
BSX_API void bsx_package_close(bsx_package *package);

/* The text of bsexport.json: name, task, recipe and all else that it says. */
BSX_API const char *bsx_package_manifest(const bsx_package *package, size_t *size);

/* Bytes of all tensors decoded, each at its arena_offset. */
BSX_API uint64_t bsx_package_arena_bytes(const bsx_package *package);

/* A tensor. The pointers are valid as long as the package is open. */
typedef struct bsx_tensor {
    const char *name; /* UTF-8, ends with a zero */
    const char *type; /* "float32", "float16" ...; head->dtype as a word */
    uint64_t bytes;   /* decoded */
    uint64_t arena_offset;
    const bsx_head *head; /* its shape: the first head->ndim of head->dims */
    const void *blob;     /* as it is stored, for bsx_decode */
    size_t blob_bytes;
} bsx_tensor;

/* How many tensors there are. */
BSX_API size_t bsx_package_tensors(const bsx_package *package);

/* Tensor `index`, in the order in which they are stored. */
BSX_API bsx_error_code bsx_package_tensor(const bsx_package *package, size_t index, bsx_tensor *tensor, bsx_error *error);

/* The index of the tensor of that name; bsx_package_tensors if there is none. */
BSX_API size_t bsx_package_find(const bsx_package *package, const char *name);

/* Decode one tensor, little-endian, in its own type and row by row. out: at any alignment, of exactly tensor.bytes. */
BSX_API bsx_error_code bsx_package_decode(const bsx_package *package, size_t index, void *out, size_t out_bytes,
                                          bsx_error *error);

/* Decode all, each to its arena_offset. arena: of exactly bsx_package_arena_bytes; the bytes between tensors are left as
 * they are. */
BSX_API bsx_error_code bsx_package_decode_all(const bsx_package *package, void *arena, size_t arena_bytes,
                                              bsx_error *error);

/* Check the size and sha256 of one file that the manifest lists, such as "config.json". */
BSX_API bsx_error_code bsx_package_check_file(const bsx_package *package, const char *name, bsx_error *error);

/* Check everything: the sha256 of every file and blob, every block, the zeros between the blobs. Stops at the first
 * thing that is wrong. */
BSX_API bsx_error_code bsx_package_verify(const bsx_package *package, bsx_error *error);

/* ---- sessions ---- */

/* Of onnxruntime_c_api.h, which this header does not need. */
struct OrtApiBase;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;

/* Where a session's weights are. */
typedef enum bsx_mode {
    BSX_MODE_FLOAT32 = 0, /* decoded, once for all sessions of the package, and used in place */
    BSX_MODE_CODED = 1    /* in the mapped file, as they are stored: the library's operators multiply by them there */
} bsx_mode;

/* Make a session of the package on the onnxruntime that the caller has linked or loaded, of version 1.31 or later.
 *
 * onnxruntime  what OrtGetApiBase() returns.
 * options      NULL: onnxruntime's own, but it logs errors only and keeps no memory pattern. Else a copy is taken of them,
 *              to which is added what using the weights in place needs; for BSX_MODE_CODED also the library's operators,
 *              which the options given must not have already.
 * session      to be released by the caller, with OrtApi.ReleaseSession, before the package is closed: the package owns
 *              the weights. NULL after an error. */
BSX_API bsx_error_code bsx_create_session(bsx_package *package, const struct OrtApiBase *onnxruntime,
                                          const struct OrtEnv *env, const struct OrtSessionOptions *options,
                                          bsx_mode mode, struct OrtSession **session, bsx_error *error);

#ifdef __cplusplus
}
#endif
#endif
