/* package.c - open a package, and decode and check what is in it. */
#include "package.h"

#include <stdlib.h>
#include <string.h>

#include "blob.h"
#include "json.h"

#define MANIFEST_LIMIT (UINT64_C(64) << 20)    /* bytes; a model with 100,000 tensors stays below it */
#define CACHE_BYTES (UINT64_C(1) << 25)        /* output beyond the last-level cache of most processors */
#define RELEASE_BYTES (UINT64_C(16) << 20)     /* blobs decoded before their file pages are let go */
#define VERIFIED_BLOCKS BSX_GROUP              /* decoded together to check them */

/* ---- opening ---- */

static char *join(const char *directory, const char *name) {
    const size_t length = strlen(directory), more = strlen(name);
    const bool slash = length > 0 && directory[length - 1] != '/';
    char *path = malloc(length + slash + more + 1);
    if (path == NULL) return NULL;
    memcpy(path, directory, length);
    if (slash) path[length] = '/';
    memcpy(path + length + slash, name, more + 1);
    return path;
}

static bsx_error_code no_memory(const bsx_package *p, bsx_error *error) {
    return bsx_fail(error, BSX_ERROR_MEMORY, "%s: there is too little memory to open it", p->directory);
}

/* The error of a file that cannot be opened, read or mapped. hint: what to do. */
static bsx_error_code unreadable(const bsx_file *file, const char *path, const char *reason, const char *hint,
                                 bsx_error *error) {
    if (file->no_memory) return bsx_fail(error, BSX_ERROR_MEMORY, "%s: %s", path, reason);
    return bsx_fail(error, BSX_ERROR_FILE, "%s: %s; %s", path, reason, hint);
}

static bsx_error_code open_manifest(bsx_package *p, bsx_error *error) {
    bsx_file *file = &p->manifest_file;
    const char *reason = bsx_file_open(file, p->manifest_path);
    const bool too_large = reason == NULL && file->size > MANIFEST_LIMIT;
    if (reason == NULL && !too_large) reason = bsx_file_read(file);
    if (reason) return unreadable(file, p->manifest_path, reason, "expected a directory made by bsexport pack", error);
    return bsx_read_manifest(&p->manifest, (const char *)file->data, too_large ? 0 : (size_t)file->size,
                             p->manifest_path, error);
}

static bsx_error_code wrong_size(const char *path, uint64_t found, uint64_t expected, bsx_error *error) {
    return bsx_fail(error, BSX_ERROR_DAMAGED, "%s: has %llu bytes, the manifest says %llu; " BSX_AGAIN, path,
                    (unsigned long long)found, (unsigned long long)expected);
}

static bsx_error_code open_weights(bsx_package *p, bsx_error *error) {
    const uint64_t expected = bsx_weights_bytes(&p->manifest);
    const char *reason = bsx_file_open(&p->weights, p->weights_path);
    if (reason == NULL && p->weights.size != expected) {
        return wrong_size(p->weights_path, p->weights.size, expected, error);
    }
    if (reason == NULL) reason = bsx_file_map(&p->weights);
    if (reason) return unreadable(&p->weights, p->weights_path, reason, BSX_AGAIN, error);
    return BSX_ERROR_NONE;
}

static const uint8_t *blob_of(const bsx_package *p, size_t i) { return p->weights.data + p->manifest.tensors[i].offset; }

static size_t blob_bytes(const bsx_package *p, size_t i) { return (size_t)p->manifest.tensors[i].bytes; }

static uint64_t decoded_bytes(const bsx_head *head) { return head->weights * head->item_bytes; }

/* The error of a blob that breaks a rule. block: the bad one, or NULL. */
static bsx_error_code bad_blob(const bsx_package *p, size_t i, bsx_status status, const uint64_t *block,
                               bsx_error *error) {
    char shown[BSX_PRINTABLE_BYTES];
    bsx_print_name(p->manifest.tensors[i].name, shown);
    if (block) {
        bsx_fail(error, BSX_ERROR_BLOB, "%s: tensor %s: block %llu of %llu: %s; " BSX_AGAIN, p->weights_path, shown,
                 (unsigned long long)*block, (unsigned long long)p->heads[i].blocks, bsx_status_name((int)status));
    } else {
        bsx_fail(error, BSX_ERROR_BLOB, "%s: tensor %s: %s; " BSX_AGAIN, p->weights_path, shown,
                 bsx_status_name((int)status));
    }
    if (error) error->status = status;
    return BSX_ERROR_BLOB;
}

static bsx_error_code parse_heads(bsx_package *p, bsx_error *error) {
    p->heads = malloc((p->manifest.count + 1) * sizeof *p->heads);
    if (p->heads == NULL) return no_memory(p, error);
    for (size_t i = 0; i < p->manifest.count; i++) {
        const bsx_status status = bsx_parse(blob_of(p, i), blob_bytes(p, i), &p->heads[i]);
        if (status != BSX_OK) return bad_blob(p, i, status, NULL, error);
    }
    return bsx_check_heads(&p->manifest, p->heads, error);
}

static bsx_error_code open_parts(bsx_package *p, bsx_error *error) {
    bsx_error_code code;
    p->manifest_path = join(p->directory, BSX_MANIFEST);
    p->weights_path = join(p->directory, BSX_WEIGHTS);
    if (p->manifest_path == NULL || p->weights_path == NULL) return no_memory(p, error);
    if (!bsx_is_directory(p->directory)) {
        return bsx_fail(error, BSX_ERROR_NO_PACKAGE, "%s: no such package; expected a directory made by bsexport pack",
                        p->directory);
    }
    if ((code = open_manifest(p, error)) || (code = open_weights(p, error))) return code;
    return parse_heads(p, error);
}

bsx_error_code bsx_package_open(const char *directory, bsx_package **package, bsx_error *error) {
    if (package) *package = NULL;
    if (directory == NULL || package == NULL) {
        return bsx_fail(error, BSX_ERROR_ARGUMENT, "bsx_package_open: directory or package is NULL");
    }
    bsx_package *p = calloc(1, sizeof *p);
    char *kept = malloc(strlen(directory) + 1);
    if (p == NULL || kept == NULL) {
        free(p);
        free(kept);
        return bsx_fail(error, BSX_ERROR_MEMORY, "%s: there is too little memory to open it", directory);
    }
    p->directory = strcpy(kept, directory);
    const bsx_error_code code = open_parts(p, error);
    if (code) {
        bsx_package_close(p);
        return code;
    }
    *package = p;
    return bsx_succeed(error);
}

void bsx_package_close(bsx_package *p) {
    if (p == NULL) return;
    bsx_free_pages(p->arena, bsx_arena_size(p));
    free(p->heads);
    bsx_free_manifest(&p->manifest);
    bsx_file_close(&p->manifest_file);
    bsx_file_close(&p->weights);
    free(p->weights_path);
    free(p->manifest_path);
    free(p->directory);
    free(p);
}

/* ---- what there is ---- */

const char *bsx_package_manifest(const bsx_package *p, size_t *size) {
    *size = (size_t)p->manifest_file.size;
    return (const char *)p->manifest_file.data;
}

uint64_t bsx_package_arena_bytes(const bsx_package *p) { return p->manifest.arena_bytes; }

size_t bsx_package_tensors(const bsx_package *p) { return p->manifest.count; }

static bsx_error_code no_tensor(const bsx_package *p, size_t i, bsx_error *error) {
    return bsx_fail(error, BSX_ERROR_ARGUMENT, "%s: tensor %llu is asked for, it has %llu", p->directory,
                    (unsigned long long)i, (unsigned long long)p->manifest.count);
}

bsx_error_code bsx_package_tensor(const bsx_package *p, size_t i, bsx_tensor *tensor, bsx_error *error) {
    if (i >= p->manifest.count) return no_tensor(p, i, error);
    const bsx_entry *entry = &p->manifest.tensors[i];
    const bsx_tensor found = {
        entry->name,    bsx_dtype_name(entry->dtype), decoded_bytes(&p->heads[i]), entry->arena_offset,
        &p->heads[i],   blob_of(p, i),                blob_bytes(p, i),
    };
    *tensor = found;
    return bsx_succeed(error);
}

size_t bsx_package_find(const bsx_package *p, const char *name) {
    size_t low = 0, high = p->manifest.count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(name, p->manifest.by_name[middle]->name);
        if (order == 0) return (size_t)(p->manifest.by_name[middle] - p->manifest.tensors);
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return p->manifest.count;
}

/* ---- decoding ---- */

/* Decode all blocks of a tensor, `step` of them at a time: to consecutive places of out, or all to the same one. */
static bsx_error_code decode_blocks(const bsx_package *p, size_t i, uint64_t step, bool keep, unsigned flags,
                                    uint8_t *out, uint8_t *memory, bsx_error *error) {
    const bsx_head *head = &p->heads[i];
    const bsx_grid grid = bsx_head_grid(head);
    const size_t workspace_bytes = (size_t)head->workspace_bytes;
    bsx_status status = bsx_prepare(blob_of(p, i), blob_bytes(p, i), head, head->dtype, memory, workspace_bytes);
    if (status != BSX_OK) return bad_blob(p, i, status, NULL, error);
    for (uint64_t first = 0; first < head->blocks; first += step) {
        const uint64_t count = step < head->blocks - first ? step : head->blocks - first;
        const uint64_t start = bsx_grid_first(&grid, first);
        const uint64_t end = bsx_grid_first(&grid, first + count - 1) + bsx_grid_weights(&grid, first + count - 1);
        uint64_t bad;
        status = bsx_decode(blob_of(p, i), blob_bytes(p, i), head, memory, workspace_bytes, first, count, flags,
                            out + (keep ? start * head->item_bytes : 0), (size_t)((end - start) * head->item_bytes),
                            memory + workspace_bytes, (size_t)head->scratch_bytes, &bad);
        if (status != BSX_OK) {
            const bool block = status == BSX_BLOCK_CRC || status == BSX_BAD_STREAM;
            return bad_blob(p, i, status, block ? &bad : NULL, error);
        }
    }
    return BSX_ERROR_NONE;
}

/* Decode a tensor to out, or only to see that it can be decoded if out is NULL. */
static bsx_error_code decode(const bsx_package *p, size_t i, unsigned flags, uint8_t *out, bsx_error *error) {
    const bsx_head *head = &p->heads[i];
    const uint64_t block = (uint64_t)head->block_rows * head->block_cols * head->item_bytes;
    const uint64_t step = out ? head->blocks : VERIFIED_BLOCKS;
    const uint64_t bytes = head->workspace_bytes + head->scratch_bytes + (out ? 0 : step * block);
    uint8_t *memory = bytes <= SIZE_MAX ? malloc((size_t)bytes) : NULL;
    if (memory == NULL) {
        return bsx_fail(error, BSX_ERROR_MEMORY, "%s: decoding takes %llu bytes of memory beside the tensor's",
                        p->weights_path, (unsigned long long)bytes);
    }
    uint8_t *room = out ? out : memory + head->workspace_bytes + head->scratch_bytes;
    const bsx_error_code code = decode_blocks(p, i, step, out != NULL, flags, room, memory, error);
    free(memory);
    return code;
}

bsx_error_code bsx_package_decode(const bsx_package *p, size_t i, void *out, size_t out_bytes, bsx_error *error) {
    if (i >= p->manifest.count) return no_tensor(p, i, error);
    if (out == NULL || out_bytes != decoded_bytes(&p->heads[i])) {
        char shown[BSX_PRINTABLE_BYTES];
        return bsx_fail(error, BSX_ERROR_ARGUMENT, "%s: tensor %s takes %llu bytes, the buffer has %llu", p->directory,
                        bsx_print_name(p->manifest.tensors[i].name, shown),
                        (unsigned long long)decoded_bytes(&p->heads[i]), (unsigned long long)(out ? out_bytes : 0));
    }
    const bsx_error_code code = decode(p, i, out_bytes > CACHE_BYTES ? BSX_AROUND_CACHE : 0, out, error);
    return code ? code : bsx_succeed(error);
}

bsx_error_code bsx_package_decode_all(const bsx_package *p, void *arena, size_t arena_bytes, bsx_error *error) {
    const uint64_t expected = p->manifest.arena_bytes;
    if (arena_bytes != expected || (arena == NULL && expected > 0)) {
        return bsx_fail(error, BSX_ERROR_ARGUMENT, "%s: its tensors take %llu bytes, the buffer has %llu", p->directory,
                        (unsigned long long)expected, (unsigned long long)(arena ? arena_bytes : 0));
    }
    uint64_t released = 0;
    for (size_t i = 0; i < p->manifest.count; i++) {
        const bsx_entry *entry = &p->manifest.tensors[i];
        const bsx_error_code code = decode(p, i, expected > CACHE_BYTES ? BSX_AROUND_CACHE : 0,
                                           (uint8_t *)arena + entry->arena_offset, error);
        if (code) return code;
        const uint64_t end = entry->offset + entry->bytes;
        if (end - released > RELEASE_BYTES || i + 1 == p->manifest.count) {
            bsx_file_release(&p->weights, released, end - released);
            released = end;
        }
    }
    return bsx_succeed(error);
}

/* ---- checksums ---- */

/* Open a file that the manifest lists, entry: its object there. Its size and sha256 are checked. */
static bsx_error_code load_listed(const char *entry, const char *path, bool map, bsx_file *file, bsx_error *error) {
    uint64_t bytes;
    char hex[BSX_HEX_BYTES + 1];
    bsx_json_natural(bsx_json_member(entry, "bytes"), UINT64_C(1) << 62, &bytes); /* a size, as was checked */
    const char *reason = bsx_file_open(file, path);
    if (reason == NULL && file->size != bytes) return wrong_size(path, file->size, bytes, error);
    if (reason == NULL) reason = map ? bsx_file_map(file) : bsx_file_read(file);
    if (reason) return unreadable(file, path, reason, BSX_AGAIN, error);
    bsx_sha256_hex(file->data, (size_t)file->size, hex);
    if (bsx_json_string_is(bsx_json_member(entry, "sha256"), hex)) return BSX_ERROR_NONE;
    return bsx_fail(error, BSX_ERROR_DAMAGED, "%s: is not the file that was packed (its sha256 differs); " BSX_AGAIN, path);
}

static bsx_error_code load_file(const bsx_package *p, const char *name, bool map, bsx_file *file, bsx_error *error) {
    char shown[BSX_PRINTABLE_BYTES];
    memset(file, 0, sizeof *file);
    const char *entry = bsx_json_member(p->manifest.json_files, name);
    if (entry == NULL) {
        return bsx_fail(error, BSX_ERROR_MANIFEST, "%s: lists no file %s; expected a package made by bsexport pack",
                        p->manifest_path, bsx_print_name(name, shown));
    }
    char *path = join(p->directory, name);
    if (path == NULL) return no_memory(p, error);
    const bsx_error_code code = load_listed(entry, path, map, file, error);
    free(path);
    return code;
}

bsx_error_code bsx_package_read(const bsx_package *p, const char *name, bsx_file *file, bsx_error *error) {
    return load_file(p, name, false, file, error);
}

static bsx_error_code check_file(const bsx_package *p, const char *name, bsx_error *error) {
    bsx_file file;
    const bsx_error_code code = load_file(p, name, true, &file, error);
    bsx_file_close(&file);
    return code;
}

bsx_error_code bsx_package_check_file(const bsx_package *p, const char *name, bsx_error *error) {
    const bsx_error_code code = check_file(p, name, error);
    return code ? code : bsx_succeed(error);
}

/* Every file but weights.bsx, whose blobs are checked one by one, to say where it is damaged. */
static bsx_error_code check_files(const bsx_package *p, bsx_error *error) {
    bsx_error_code code = BSX_ERROR_NONE;
    for (const char *key = bsx_json_first(p->manifest.json_files); key && !code; key = bsx_json_next_key(key)) {
        const size_t size = bsx_json_read_string(key, NULL, 0);
        char *name = malloc(size + 1);
        if (name == NULL) return no_memory(p, error);
        bsx_json_read_string(key, name, size);
        name[size] = 0;
        if (strcmp(name, BSX_WEIGHTS) != 0) code = check_file(p, name, error);
        free(name);
    }
    return code;
}

/* The sha256 of a blob, its blocks, and the zeros before it. */
static bsx_error_code verify_tensor(const bsx_package *p, size_t i, uint64_t end, bsx_error *error) {
    const bsx_entry *entry = &p->manifest.tensors[i];
    char hex[BSX_HEX_BYTES + 1], shown[BSX_PRINTABLE_BYTES];
    bsx_print_name(entry->name, shown);
    for (uint64_t at = end; at < entry->offset; at++) {
        if (p->weights.data[at] != 0) {
            return bsx_fail(error, BSX_ERROR_DAMAGED, "%s: the bytes before tensor %s are not zero; " BSX_AGAIN,
                            p->weights_path, shown);
        }
    }
    bsx_sha256_hex(blob_of(p, i), blob_bytes(p, i), hex);
    if (!bsx_json_string_is(entry->json_sha256, hex)) {
        return bsx_fail(error, BSX_ERROR_DAMAGED, "%s: tensor %s: its sha256 differs from the manifest's; " BSX_AGAIN,
                        p->weights_path, shown);
    }
    return decode(p, i, 0, NULL, error);
}

bsx_error_code bsx_package_verify(const bsx_package *p, bsx_error *error) {
    bsx_error_code code = check_files(p, error);
    uint64_t end = 0;
    for (size_t i = 0; i < p->manifest.count && !code; i++) {
        const bsx_entry *entry = &p->manifest.tensors[i];
        code = verify_tensor(p, i, end, error);
        bsx_file_release(&p->weights, end, entry->offset + entry->bytes - end);
        end = entry->offset + entry->bytes;
    }
    return code ? code : bsx_succeed(error);
}
