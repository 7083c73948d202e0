/* manifest.c - check the manifest (section 7) before anything of it is believed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "package.h"

#define SEAL ",\n \"sha256\": \""
#define END "\"\n}\n"
#define SEAL_BYTES (sizeof SEAL - 1)
#define TAIL_BYTES (SEAL_BYTES + BSX_HEX_BYTES + sizeof END - 1)
#define SIZE_LIMIT (UINT64_C(1) << 62) /* integers are below it */
#define ALIGNMENT 64U
#define EXPECTED "expected a directory made by bsexport pack"

static const char *const dtype_names[] = {
    NULL,      "float32", "uint8",  "int8",   "uint16",    "int16",      "int32",    "int64",        NULL,           "bool",       "float16",
    "float64", "uint32",  "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz",
};
#define DTYPES (sizeof dtype_names / sizeof dtype_names[0])

const char *bsx_dtype_name(unsigned dtype) { return dtype < DTYPES ? dtype_names[dtype] : NULL; }

uint64_t bsx_next_place(uint64_t offset) { return (offset + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* ---- single fields ---- */

static bsx_error_code no_memory(const bsx_manifest *m, bsx_error *error) {
    return bsx_fail(error, BSX_ERROR_MEMORY, "%s: there is too little memory to read it", m->path);
}

/* The value of a field, which must be of that kind. */
static bsx_error_code get(const bsx_manifest *m, const char *object, const char *key, bsx_json_kind kind,
                          const char **value, bsx_error *error) {
    *value = bsx_json_member(object, key);
    const bsx_json_kind found = *value ? bsx_json_kind_of(*value) : BSX_JSON_NULL;
    if (found == kind) return BSX_ERROR_NONE;
    return bsx_fail(error, BSX_ERROR_MANIFEST, "%s: %s is %s, expected %s; " BSX_AGAIN, m->path, key,
                    found == BSX_JSON_NULL ? "missing" : bsx_json_kind_name(found), bsx_json_kind_name(kind));
}

static bsx_error_code read_size(const bsx_manifest *m, const char *value, const char *key, uint64_t *size,
                                bsx_error *error) {
    const bsx_json_kind kind = bsx_json_kind_of(value);
    if (kind != BSX_JSON_INTEGER) {
        return bsx_fail(error, BSX_ERROR_MANIFEST, "%s: %s is %s, expected an integer; " BSX_AGAIN, m->path, key,
                        bsx_json_kind_name(kind));
    }
    if (bsx_json_natural(value, SIZE_LIMIT, size)) return BSX_ERROR_NONE;
    const size_t length = bsx_json_number_length(value);
    return bsx_fail(error, BSX_ERROR_MANIFEST, "%s: %s is %.*s, expected a size; " BSX_AGAIN, m->path, key,
                    (int)(length < 30 ? length : 13), length < 30 ? value : "a huge number");
}

static bsx_error_code get_size(const bsx_manifest *m, const char *object, const char *key, uint64_t *size,
                               bsx_error *error) {
    const char *value;
    const bsx_error_code code = get(m, object, key, BSX_JSON_INTEGER, &value, error);
    return code ? code : read_size(m, value, key, size, error);
}

/* ---- the whole ---- */

/* Does the content end with the sha256 of all before it? */
static bool sealed(const char *content, size_t size) {
    char tail[TAIL_BYTES + 1] = SEAL;
    if (size < TAIL_BYTES) return false;
    bsx_sha256_hex(content, size - TAIL_BYTES, tail + SEAL_BYTES);
    memcpy(tail + SEAL_BYTES + BSX_HEX_BYTES, END, sizeof END);
    return memcmp(content + size - TAIL_BYTES, tail, TAIL_BYTES) == 0;
}

static bsx_error_code check_version(const bsx_manifest *m, bsx_error *error) {
    const char *value = bsx_json_member(m->json, "version");
    const bsx_json_kind kind = value ? bsx_json_kind_of(value) : BSX_JSON_NULL;
    uint64_t version = 1;
    if (kind == BSX_JSON_INTEGER && bsx_json_natural(value, SIZE_LIMIT, &version) && version == 0) return BSX_ERROR_NONE;
    const bool number = kind == BSX_JSON_INTEGER || kind == BSX_JSON_FRACTION;
    const size_t length = number ? bsx_json_number_length(value) : strlen(bsx_json_kind_name(kind));
    return bsx_fail(error, BSX_ERROR_VERSION,
                    "%s: has format version %.*s, this library reads version 0; update it, or pack the model again",
                    m->path, (int)(length < 20 ? length : 20), number ? value : bsx_json_kind_name(kind));
}

/* ---- files ---- */

/* Has the name no slash, backslash, colon or control character, and is it not "." or ".."? */
static bool is_plain(const char *name, size_t size) {
    for (size_t i = 0; i < size; i++) {
        const unsigned char byte = (unsigned char)name[i];
        if (byte < 0x20 || byte == 0x7F || byte == '/' || byte == '\\' || byte == ':') return false;
        if (byte == 0xC2 && (unsigned char)name[i + 1] < 0xA0) return false; /* U+0080 to U+009F */
    }
    return size > 0 && !(size == 1 && name[0] == '.') && !(size == 2 && memcmp(name, "..", 2) == 0);
}

static bsx_error_code check_file(const bsx_manifest *m, const char *key, char *name, bsx_error *error) {
    const char *entry = bsx_json_value(key), *sha256;
    char shown[BSX_PRINTABLE_BYTES];
    uint64_t bytes;
    const size_t size = bsx_json_read_string(key, NULL, 0);
    bsx_json_read_string(key, name, size);
    if (!is_plain(name, size) || bsx_json_kind_of(entry) != BSX_JSON_OBJECT) {
        return bsx_fail(error, BSX_ERROR_MANIFEST,
                        "%s: has the file '%s', expected a plain name, its bytes and its sha256; " BSX_AGAIN, m->path,
                        bsx_print(name, size, shown));
    }
    const bsx_error_code code = get_size(m, entry, "bytes", &bytes, error);
    return code ? code : get(m, entry, "sha256", BSX_JSON_STRING, &sha256, error);
}

static bsx_error_code check_files(bsx_manifest *m, bsx_error *error) {
    size_t longest = 1;
    bsx_error_code code = get(m, m->json, "files", BSX_JSON_OBJECT, &m->json_files, error);
    if (code) return code;
    for (const char *key = bsx_json_first(m->json_files); key; key = bsx_json_next_key(key)) {
        const size_t size = bsx_json_read_string(key, NULL, 0);
        if (size > longest) longest = size;
    }
    char *name = malloc(longest);
    if (name == NULL) return no_memory(m, error);
    for (const char *key = bsx_json_first(m->json_files); key && !code; key = bsx_json_next_key(key)) {
        code = check_file(m, key, name, error);
    }
    free(name);
    return code;
}

/* ---- tensors ---- */

static bsx_error_code read_dtype(const bsx_manifest *m, const char *json, unsigned *dtype, bsx_error *error) {
    const char *value;
    const bsx_error_code code = get(m, json, "dtype", BSX_JSON_STRING, &value, error);
    if (code) return code;
    for (*dtype = 1; *dtype < DTYPES; ++*dtype) {
        if (dtype_names[*dtype] && bsx_json_string_is(value, dtype_names[*dtype])) return BSX_ERROR_NONE;
    }
    char name[BSX_PRINTABLE_BYTES], shown[BSX_PRINTABLE_BYTES];
    const size_t size = bsx_json_read_string(value, name, sizeof name);
    return bsx_fail(error, BSX_ERROR_MANIFEST,
                    "%s: has the dtype '%s', expected one of section 2 of the format, such as 'float32'; " BSX_AGAIN,
                    m->path, bsx_print(name, size < sizeof name ? size : sizeof name, shown));
}

static bsx_error_code read_shape(const bsx_manifest *m, const char *json, bsx_entry *entry, bsx_error *error) {
    const char *value;
    bsx_error_code code = get(m, json, "shape", BSX_JSON_ARRAY, &value, error);
    if (code) return code;
    for (const char *dim = bsx_json_first(value); dim; dim = bsx_json_next_element(dim)) {
        uint64_t size;
        code = read_size(m, dim, "shape", &size, error);
        if (code) return code;
        if (entry->ndim < BSX_MAX_DIMS) entry->dims[entry->ndim] = size;
        entry->ndim++;
    }
    return BSX_ERROR_NONE;
}

static bsx_error_code read_entry(const bsx_manifest *m, const char *json, bsx_entry *entry, bsx_error *error) {
    bsx_error_code code;
    memset(entry, 0, sizeof *entry);
    if (bsx_json_kind_of(json) != BSX_JSON_OBJECT) {
        return bsx_fail(error, BSX_ERROR_MANIFEST, "%s: a tensor is %s, expected an object; " BSX_AGAIN, m->path,
                        bsx_json_kind_name(bsx_json_kind_of(json)));
    }
    if ((code = read_dtype(m, json, &entry->dtype, error)) || (code = read_shape(m, json, entry, error)) ||
        (code = get(m, json, "name", BSX_JSON_STRING, &entry->json_name, error)) ||
        (code = get_size(m, json, "offset", &entry->offset, error)) ||
        (code = get_size(m, json, "bytes", &entry->bytes, error)) ||
        (code = get_size(m, json, "arena_offset", &entry->arena_offset, error))) {
        return code;
    }
    return get(m, json, "sha256", BSX_JSON_STRING, &entry->json_sha256, error);
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(bsx_entry *const *)a)->name, (*(bsx_entry *const *)b)->name);
}

/* Decode the names, each with a zero behind it, and sort them. */
static bsx_error_code read_names(bsx_manifest *m, bsx_error *error) {
    char shown[BSX_PRINTABLE_BYTES];
    size_t total = 0;
    for (size_t i = 0; i < m->count; i++) total += bsx_json_read_string(m->tensors[i].json_name, NULL, 0) + 1;
    m->names = malloc(total + 1);
    m->by_name = malloc((m->count + 1) * sizeof *m->by_name);
    if (m->names == NULL || m->by_name == NULL) return no_memory(m, error);
    char *out = m->names;
    for (size_t i = 0; i < m->count; i++) {
        const size_t size = bsx_json_read_string(m->tensors[i].json_name, out, total);
        if (memchr(out, 0, size)) {
            return bsx_fail(error, BSX_ERROR_MANIFEST, "%s: the name of tensor %s has a zero in it; " BSX_AGAIN, m->path,
                            bsx_print(out, size, shown));
        }
        m->tensors[i].name = out;
        m->by_name[i] = &m->tensors[i];
        out[size] = 0;
        out += size + 1;
        total -= size + 1;
    }
    qsort(m->by_name, m->count, sizeof *m->by_name, compare_names);
    for (size_t i = 1; i < m->count; i++) {
        if (strcmp(m->by_name[i - 1]->name, m->by_name[i]->name) == 0) {
            return bsx_fail(error, BSX_ERROR_MANIFEST, "%s: names tensor %s twice; " BSX_AGAIN, m->path,
                            bsx_print_name(m->by_name[i]->name, shown));
        }
    }
    return BSX_ERROR_NONE;
}

/* The entries grow with what has been found sound, so that memory is in proportion to the file. */
static bsx_error_code read_entries(bsx_manifest *m, bsx_error *error) {
    const char *tensors;
    size_t room = 0;
    bsx_error_code code = get(m, m->json, "tensors", BSX_JSON_ARRAY, &tensors, error);
    if (code) return code;
    for (const char *json = bsx_json_first(tensors); json; json = bsx_json_next_element(json)) {
        bsx_entry entry;
        code = read_entry(m, json, &entry, error);
        if (code) return code;
        if (m->count == room) {
            room = room ? 2 * room : 64;
            bsx_entry *grown = realloc(m->tensors, room * sizeof *grown);
            if (grown == NULL) return no_memory(m, error);
            m->tensors = grown;
        }
        m->tensors[m->count++] = entry;
    }
    return read_names(m, error);
}

/* Does each blob start where the one before it makes it start? */
static bsx_error_code check_offsets(const bsx_manifest *m, bsx_error *error) {
    char shown[BSX_PRINTABLE_BYTES];
    uint64_t end = 0;
    for (size_t i = 0; i < m->count; i++) {
        const bsx_entry *entry = &m->tensors[i];
        if (entry->offset != bsx_next_place(end)) {
            return bsx_fail(error, BSX_ERROR_MANIFEST, "%s: tensor %s has offset %llu, expected %llu; " BSX_AGAIN, m->path,
                            bsx_print_name(entry->name, shown), (unsigned long long)entry->offset,
                            (unsigned long long)bsx_next_place(end));
        }
        end = entry->offset + entry->bytes; /* both are below 2^62 */
    }
    return BSX_ERROR_NONE;
}

bsx_error_code bsx_read_manifest(bsx_manifest *m, const char *content, size_t size, const char *path,
                                 bsx_error *error) {
    bsx_error_code code;
    memset(m, 0, sizeof *m);
    m->path = path;
    const bsx_json_verdict verdict = bsx_json_check(content, size, &m->json);
    if (verdict == BSX_JSON_NO_MEMORY) return no_memory(m, error);
    const char *format = NULL;
    if (verdict == BSX_JSON_SOUND && *m->json == '{') format = bsx_json_member(m->json, "format");
    if (!format || bsx_json_kind_of(format) != BSX_JSON_STRING || !bsx_json_string_is(format, "bsexport")) {
        return bsx_fail(error, BSX_ERROR_NO_PACKAGE, "%s: is not a bsexport manifest; " EXPECTED, path);
    }
    if ((code = check_version(m, error))) return code;
    if (!sealed(content, size)) {
        return bsx_fail(error, BSX_ERROR_MANIFEST,
                        "%s: was changed since the package was made (its sha256 differs); " BSX_AGAIN, path);
    }
    if ((code = check_files(m, error)) || (code = read_entries(m, error)) || (code = check_offsets(m, error))) return code;
    return get_size(m, m->json, "arena_bytes", &m->arena_bytes, error);
}

void bsx_free_manifest(bsx_manifest *m) {
    free(m->tensors);
    free(m->by_name);
    free(m->names);
    memset(m, 0, sizeof *m);
}

/* ---- beside the blobs ---- */

uint64_t bsx_weights_bytes(const bsx_manifest *m) {
    return m->count ? m->tensors[m->count - 1].offset + m->tensors[m->count - 1].bytes : 0;
}

/* A type and a shape as float32 [400, 48]. */
static const char *describe(unsigned dtype, const uint64_t *dims, uint64_t ndim, char out[BSX_PRINTABLE_BYTES]) {
    size_t length = (size_t)snprintf(out, BSX_PRINTABLE_BYTES, "%s [", bsx_dtype_name(dtype));
    for (uint64_t i = 0; i < ndim && i < BSX_MAX_DIMS; i++) {
        length += (size_t)snprintf(out + length, BSX_PRINTABLE_BYTES - length, "%s%llu", i ? ", " : "",
                                   (unsigned long long)dims[i]);
    }
    snprintf(out + length, BSX_PRINTABLE_BYTES - length, ndim > BSX_MAX_DIMS ? ", ...]" : "]");
    return out;
}

static bool fits(const bsx_entry *entry, const bsx_head *head) {
    return entry->dtype == head->dtype && entry->ndim == head->ndim &&
           memcmp(entry->dims, head->dims, sizeof entry->dims) == 0;
}

bsx_error_code bsx_check_heads(const bsx_manifest *m, const bsx_head *heads, bsx_error *error) {
    char shown[BSX_PRINTABLE_BYTES], said[BSX_PRINTABLE_BYTES], found[BSX_PRINTABLE_BYTES];
    uint64_t end = 0;
    for (size_t i = 0; i < m->count; i++) {
        const bsx_entry *entry = &m->tensors[i];
        bsx_print_name(entry->name, shown);
        if (!fits(entry, &heads[i])) {
            return bsx_fail(error, BSX_ERROR_MANIFEST, "%s: says that tensor %s is %s, its blob says %s; " BSX_AGAIN,
                            m->path, shown, describe(entry->dtype, entry->dims, entry->ndim, said),
                            describe(heads[i].dtype, heads[i].dims, heads[i].ndim, found));
        }
        if (entry->arena_offset != bsx_next_place(end)) {
            return bsx_fail(error, BSX_ERROR_MANIFEST, "%s: tensor %s has arena_offset %llu, expected %llu; " BSX_AGAIN,
                            m->path, shown, (unsigned long long)entry->arena_offset,
                            (unsigned long long)bsx_next_place(end));
        }
        end = entry->arena_offset + heads[i].weights * heads[i].item_bytes;
    }
    if (m->arena_bytes != end) {
        return bsx_fail(error, BSX_ERROR_MANIFEST, "%s: arena_bytes is %llu, expected %llu; " BSX_AGAIN, m->path,
                        (unsigned long long)m->arena_bytes, (unsigned long long)end);
    }
    return BSX_ERROR_NONE;
}
