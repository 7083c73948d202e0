/* test_package.c - the package of ../tests/package: what is in it, and what becomes of it once it is damaged. */
#define _POSIX_C_SOURCE 200809L /* mkdtemp */
#define _FILE_OFFSET_BITS 64

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "package.h"

#if !defined(PACKAGE)
#define PACKAGE "../tests/package"
#endif

#define MOST 65536U /* bytes of a file of it */

static const char *const files[] = {"bsexport.json", "weights.bsx", "decoded.onnx", "model.onnx", "config.json"};
enum { FILES = 5, MANIFEST = 0, WEIGHTS = 1, CONFIG = 4 };

/* A copy of the package that tests change. */
typedef struct copy {
    char directory[32];
    uint8_t content[FILES][MOST];
    size_t size[FILES];
} copy;

static void path_of(const copy *c, int file, char path[64]) { snprintf(path, 64, "%s/%s", c->directory, files[file]); }

static void write_file(const copy *c, int file, const void *content, size_t size) {
    char path[64];
    path_of(c, file, path);
    FILE *stream = fopen(path, "wb");
    CHECK(stream && fwrite(content, 1, size, stream) == size && fclose(stream) == 0);
}

static void restore(const copy *c, int file) { write_file(c, file, c->content[file], c->size[file]); }

static copy *make_copy(void) {
    copy *c = calloc(1, sizeof *c);
    strcpy(c->directory, "/tmp/bsx_testXXXXXX");
    if (mkdtemp(c->directory) == NULL) abort();
    for (int i = 0; i < FILES; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%s", PACKAGE, files[i]);
        FILE *stream = fopen(path, "rb");
        if (stream == NULL) {
            fprintf(stderr, "%s: cannot be opened\n", path);
            abort();
        }
        c->size[i] = fread(c->content[i], 1, MOST, stream);
        fclose(stream);
        restore(c, i);
    }
    return c;
}

static void remove_copy(copy *c) {
    for (int i = 0; i < FILES; i++) {
        char path[64];
        path_of(c, i, path);
        remove(path);
    }
    rmdir(c->directory);
    free(c);
}

/* What opening and verifying it ends in. */
static bsx_error examine(const char *directory) {
    bsx_package *package;
    bsx_error error;
    memset(&error, 0xFF, sizeof error);
    const bsx_error_code code = bsx_package_open(directory, &package, &error);
    CHECK(code == error.code && (package != NULL) == (code == BSX_ERROR_NONE));
    if (package) {
        const bsx_error_code verified = bsx_package_verify(package, &error);
        CHECK(verified == error.code);
    }
    CHECK((error.message[0] == 0) == (error.code == BSX_ERROR_NONE) && strchr(error.message, '\n') == NULL);
    bsx_package_close(package);
    return error;
}

static bool ends_in(const copy *c, bsx_error_code code, const char *part) {
    const bsx_error error = examine(c->directory);
    if (error.code == code && strstr(error.message, part)) return true;
    fprintf(stderr, "found %s: %s\n", bsx_error_name(error.code), error.message);
    return false;
}

/* ---- a sound one ---- */

/* The weights that make_package.py gives a tensor, as multiples of 2^-6. */
static int level_at(uint64_t place, int every) {
    const uint64_t mixed = place * 40503 % 65521;
    return mixed % (unsigned)every == 0 ? (int)(mixed / (unsigned)every % 19) - 9 : 0;
}

static void check_floats(const float *found, size_t count, int every) {
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++) wrong += found[i] != (float)level_at(i, every) / 64;
    CHECK(wrong == 0);
}

static void test_decoding(const bsx_package *package) {
    static uint8_t arena[96704];
    static float table[19200];
    uint16_t second[2880];
    bsx_error error;
    CHECK(bsx_package_decode(package, 0, table, sizeof table, &error) == BSX_ERROR_NONE);
    check_floats(table, 19200, 11);
    CHECK(bsx_package_decode(package, 3, second, sizeof second, NULL) == BSX_ERROR_NONE);
    size_t wrong = 0;
    for (size_t i = 0; i < 2880; i++) { /* of float16, only 0, -9/64 and 1/64 are told apart here */
        const int level = level_at(i, 3);
        if (level == 0) wrong += second[i] != 0;
        if (level == -9) wrong += second[i] != 0xB080;
        if (level == 1) wrong += second[i] != 0x2400;
    }
    CHECK(wrong == 0);
    memset(arena, 0xAA, sizeof arena);
    CHECK(bsx_package_decode_all(package, arena, sizeof arena, &error) == BSX_ERROR_NONE);
    CHECK(memcmp(arena, table, sizeof table) == 0 && memcmp(arena + 90944, second, sizeof second) == 0);
    static float floats[3456 + 72];
    memcpy(floats, arena + 76800, sizeof floats);
    check_floats(floats, 3456, 1);
    CHECK(floats[3456] == -1.0F && floats[3456 + 71] == 1.0F);
    CHECK(arena[90912] == 0xAA && arena[90943] == 0xAA); /* between two tensors */
}

static void test_arguments(const bsx_package *package) {
    static uint8_t room[96705];
    bsx_package *none;
    bsx_tensor tensor;
    bsx_error error;
    CHECK(bsx_package_open(NULL, &none, &error) == BSX_ERROR_ARGUMENT && none == NULL);
    CHECK(bsx_package_open(PACKAGE, NULL, NULL) == BSX_ERROR_ARGUMENT);
    CHECK(bsx_package_tensor(package, 4, &tensor, &error) == BSX_ERROR_ARGUMENT);
    CHECK(strcmp(error.message, PACKAGE ": tensor 4 is asked for, it has 4") == 0);
    CHECK(bsx_package_decode(package, 4, room, 5760, NULL) == BSX_ERROR_ARGUMENT);
    CHECK(bsx_package_decode(package, 3, room, 5759, &error) == BSX_ERROR_ARGUMENT);
    CHECK(strcmp(error.message, PACKAGE ": tensor second takes 5760 bytes, the buffer has 5759") == 0);
    CHECK(bsx_package_decode(package, 3, room, 5761, NULL) == BSX_ERROR_ARGUMENT);
    CHECK(bsx_package_decode(package, 3, NULL, 5760, NULL) == BSX_ERROR_ARGUMENT);
    CHECK(bsx_package_decode_all(package, room, 96705, NULL) == BSX_ERROR_ARGUMENT);
    CHECK(bsx_package_decode_all(package, NULL, 96704, NULL) == BSX_ERROR_ARGUMENT);
    CHECK(bsx_package_check_file(package, "none.json", &error) == BSX_ERROR_MANIFEST);
    CHECK(strstr(error.message, "bsexport.json: lists no file none.json; expected") != NULL);
    CHECK(bsx_package_check_file(package, "config.json", &error) == BSX_ERROR_NONE && error.message[0] == 0);
    bsx_package_close(NULL);
}

static void test_sound(void) {
    static const char *const names[] = {"table", "first", "bias", "second"};
    bsx_package *package;
    bsx_error error;
    CHECK(bsx_package_open(PACKAGE, &package, &error) == BSX_ERROR_NONE);
    if (package == NULL) return;
    CHECK(bsx_package_tensors(package) == 4 && bsx_package_arena_bytes(package) == 96704);
    for (size_t i = 0; i < 4; i++) {
        bsx_tensor tensor;
        CHECK(bsx_package_tensor(package, i, &tensor, &error) == BSX_ERROR_NONE);
        CHECK(strcmp(tensor.name, names[i]) == 0 && bsx_package_find(package, names[i]) == i);
        CHECK(memcmp(tensor.blob, "BSXB", 4) == 0);
        if (i != 3) continue;
        CHECK(strcmp(tensor.type, "float16") == 0 && tensor.bytes == 5760 && tensor.arena_offset == 90944);
        CHECK(tensor.head->ndim == 2 && tensor.head->dims[0] == 72 && tensor.head->dims[1] == 40);
        CHECK(tensor.blob_bytes == 957);
    }
    CHECK(bsx_package_find(package, "third") == 4 && bsx_package_find(package, "") == 4);
    size_t size;
    const char *manifest = bsx_package_manifest(package, &size);
    CHECK(size == 3915 && memcmp(manifest, "{\n \"format\": \"bsexport\"", 23) == 0);
    test_decoding(package);
    test_arguments(package);
    CHECK(bsx_package_verify(package, &error) == BSX_ERROR_NONE);
    bsx_package_close(package);
}

/* ---- damaged ones ---- */

/* Seal a manifest without its last 82 bytes, and write it. */
static void write_sealed(const copy *c, char *body, size_t size) {
    char hex[BSX_HEX_BYTES + 1];
    bsx_sha256_hex(body, size, hex);
    const int tail = snprintf(body + size, 100, ",\n \"sha256\": \"%s\"\n}\n", hex);
    write_file(c, MANIFEST, body, size + (size_t)tail);
}

/* The manifest with the first `from` behind `after` replaced. */
static void lie(const copy *c, const char *after, const char *from, const char *to) {
    static char body[MOST + 8192];
    const char *manifest = (const char *)c->content[MANIFEST];
    const char *start = strstr(manifest, after);
    const char *found = start ? strstr(start, from) : NULL;
    CHECK_ROW(found != NULL, from);
    if (found == NULL) return;
    const size_t before = (size_t)(found - manifest), rest = c->size[MANIFEST] - 82 - before - strlen(from);
    memcpy(body, manifest, before);
    memcpy(body + before, to, strlen(to));
    memcpy(body + before + strlen(to), found + strlen(from), rest);
    write_sealed(c, body, before + strlen(to) + rest);
}

#define NUMBER_400 "1" ZEROS_100 ZEROS_100 ZEROS_100 ZEROS_100
#define ZEROS_100 ZEROS_20 ZEROS_20 ZEROS_20 ZEROS_20 ZEROS_20
#define ZEROS_20 "00000000000000000000"

/* As in ../tests/test_package.py, of which the meanings are the same. */
static const struct {
    const char *after, *from, *to;
    bsx_error_code code;
    const char *message;
} lies[] = {
    {"", "\"bsexport\"", "\"other\"", BSX_ERROR_NO_PACKAGE, "bsexport.json: is not a bsexport manifest; expected a"},
    {"", "\"version\": 0", "\"version\": 1", BSX_ERROR_VERSION, "has format version 1, this library reads version 0;"},
    {"", "\"version\": 0", "\"version\": null", BSX_ERROR_VERSION, "has format version null, this"},
    {"", "\"version\": 0", "\"version\": false", BSX_ERROR_VERSION, "has format version a boolean, this"},
    {"", "\"version\": 0", "\"version\": 0.0", BSX_ERROR_VERSION, "has format version 0.0, this"},
    {"", "\"version\": 0,", "", BSX_ERROR_VERSION, "has format version null, this"},
    {"", "\"version\": 0", "\"version\": -0", BSX_ERROR_NONE, ""},
    {"", "\"producer\"", "\"version\"", BSX_ERROR_NO_PACKAGE, "is not a bsexport manifest"},
    {"", "\"threshold\": 0.0", "\"threshold\": NaN", BSX_ERROR_NO_PACKAGE, "is not a bsexport manifest"},
    {"", "\"threshold\": 0.0", "\"threshold\": \"\xff\"", BSX_ERROR_NO_PACKAGE, "is not a bsexport manifest"},
    {"", "\"tensors\"", "\"tensor\"", BSX_ERROR_MANIFEST, "tensors is missing, expected an array; copy the package"},
    {"", "\"tensors\": [", "\"tensors\": {}, \"x\": [", BSX_ERROR_MANIFEST, "tensors is an object, expected an array"},
    {"", "\"tensors\": [", "\"tensors\": [[],", BSX_ERROR_MANIFEST, "a tensor is an array, expected an object"},
    {"", "\"tensors\": [", "\"tensors\": [], \"x\": [", BSX_ERROR_DAMAGED, "weights.bsx: has 5693 bytes, the manifest says 0"},
    {"", "\"name\": \"first\"", "\"name\": \"table\"", BSX_ERROR_MANIFEST, "names tensor table twice"},
    {"", "\"name\": \"first\"", "\"name\": 7", BSX_ERROR_MANIFEST, "name is an integer, expected a string"},
    {"", "\"name\": \"first\"", "\"name\": \"a\\u0000b\"", BSX_ERROR_MANIFEST, "tensor a\\x00b has a zero in it"},
    {"first", "\"dtype\": \"float32\"", "\"dtype\": \"float31\"", BSX_ERROR_MANIFEST, "has the dtype 'float31', expected one of"},
    {"first", "\"dtype\": \"float32\"", "\"dtype\": \"FLOAT32\"", BSX_ERROR_MANIFEST, "has the dtype 'FLOAT32', expected one"},
    {"first", "\"dtype\": \"float32\"", "\"dtype\": \"float16\"", BSX_ERROR_MANIFEST,
     "says that tensor first is float16 [48, 72], its blob says float32 [48, 72]"},
    {"first", "48", "72", BSX_ERROR_MANIFEST, "says that tensor first is float32 [72, 72], its blob says float32 [48, 72]"},
    {"first", "72", "72, 1", BSX_ERROR_MANIFEST, "says that tensor first is float32 [48, 72, 1], its blob"},
    {"first", "72", "1,2,3,4,5,6,7,8", BSX_ERROR_MANIFEST, "is float32 [48, 1, 2, 3, 4, 5, 6, 7, ...], its blob"},
    {"first", "72", "72.0", BSX_ERROR_MANIFEST, "shape is a fraction, expected an integer"},
    {"first", "72", "true", BSX_ERROR_MANIFEST, "shape is a boolean, expected an integer"},
    {"first", "48", "-48", BSX_ERROR_MANIFEST, "shape is -48, expected a size"},
    {"first", "48", "1099511627776", BSX_ERROR_MANIFEST, "is float32 [1099511627776, 72], its blob"},
    {"first", "\"offset\": 2176", "\"offset\": 2112", BSX_ERROR_MANIFEST, "tensor first has offset 2112, expected 2176"},
    {"first", "\"offset\": 2176", "\"offset\": -64", BSX_ERROR_MANIFEST, "offset is -64, expected a size"},
    {"first", "\"offset\": 2176", "\"offset\": " NUMBER_400, BSX_ERROR_MANIFEST, "offset is a huge number, expected a size"},
    {"first", "\"offset\": 2176", "\"offset\": 4611686018427387904", BSX_ERROR_MANIFEST,
     "offset is 4611686018427387904, expected a size"},
    {"second", "\"bytes\": 957", "\"bytes\": 1125899906842624", BSX_ERROR_DAMAGED,
     "weights.bsx: has 5693 bytes, the manifest says 1125899906847360"},
    {"second", "\"arena_offset\": 90944", "\"arena_offset\": 90941", BSX_ERROR_MANIFEST,
     "tensor second has arena_offset 90941, expected 90944"},
    {"second", "\"arena_offset\": 90944", "\"arena_offset\": 4611686018427387903", BSX_ERROR_MANIFEST,
     "tensor second has arena_offset 4611686018427387903, expected 90944"},
    {"", "\"arena_bytes\": 96704", "\"arena_bytes\": 1125899906842624", BSX_ERROR_MANIFEST,
     "arena_bytes is 1125899906842624, expected 96704"},
    {"", "\"arena_bytes\": 96704", "\"arena_bytes\": null", BSX_ERROR_MANIFEST, "arena_bytes is missing, expected an integer"},
    {"", "\"files\": {", "\"files\": [], \"x\": {", BSX_ERROR_MANIFEST, "files is an array, expected an object"},
    {"\"files\"", "\"config.json\": {", "\"config.json\": 3, \"x\": {", BSX_ERROR_MANIFEST, "has the file 'config.json', expected a"},
    {"\"config.json\"", "\"bytes\": 26", "\"bytes\": 1099511627776", BSX_ERROR_DAMAGED,
     "config.json: has 26 bytes, the manifest says 1099511627776"},
    {"\"config.json\"", "\"sha256\": \"", "\"sha256\": \"0", BSX_ERROR_DAMAGED, "config.json: is not the file that was packed"},
    {"\"config.json\"", "\"sha256\"", "\"sha25\"", BSX_ERROR_MANIFEST, "sha256 is missing, expected a string"},
    {"table", "\"sha256\": \"89", "\"sha256\": \"98", BSX_ERROR_DAMAGED, "tensor table: its sha256 differs from the manifest's"},
    {"\"files\"", "\"config.json\"", "\"\"", BSX_ERROR_MANIFEST, "has the file '', expected a plain name"},
    {"\"files\"", "\"config.json\"", "\".\"", BSX_ERROR_MANIFEST, "has the file '.', expected a plain name"},
    {"\"files\"", "\"config.json\"", "\"..\"", BSX_ERROR_MANIFEST, "expected a plain name"},
    {"\"files\"", "\"config.json\"", "\"../config.json\"", BSX_ERROR_MANIFEST, "expected a plain name"},
    {"\"files\"", "\"config.json\"", "\"/etc/passwd\"", BSX_ERROR_MANIFEST, "expected a plain name"},
    {"\"files\"", "\"config.json\"", "\"a\\\\b\"", BSX_ERROR_MANIFEST, "expected a plain name"},
    {"\"files\"", "\"config.json\"", "\"c:x\"", BSX_ERROR_MANIFEST, "expected a plain name"},
    {"\"files\"", "\"config.json\"", "\"a\\u0000b\"", BSX_ERROR_MANIFEST, "has the file 'a\\x00b', expected a plain name"},
    {"\"files\"", "\"config.json\"", "\"a\\nb\"", BSX_ERROR_MANIFEST, "has the file 'a\\x0ab', expected a plain name"},
    {"\"files\"", "\"config.json\"", "\"a\\u0085b\"", BSX_ERROR_MANIFEST, "has the file 'a\\x85b', expected a plain name"},
    {"\"files\"", "\"config.json\"", "\"missing.json\"", BSX_ERROR_FILE, "missing.json: No such file or directory; copy the"},
};

static void test_lies(const copy *c) {
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        lie(c, lies[i].after, lies[i].from, lies[i].to);
        CHECK_ROW(ends_in(c, lies[i].code, lies[i].message), lies[i].to);
    }
    restore(c, MANIFEST);
}

/* A name of several kilobytes: the message is cut, between characters. */
static void test_long_names(const copy *c) {
    static char name[6100] = "\"config.json\": 3, \"";
    size_t size = strlen(name);
    for (; size < 6000; size += 3) memcpy(name + size, "\xe2\x82\xac", 3);
    strcpy(name + size, "\": {");
    lie(c, "\"files\"", "\"config.json\": {", strchr(name, ',') + 2);
    CHECK(ends_in(c, BSX_ERROR_FILE, "\xe2\x82\xac"));
    lie(c, "\"files\"", "\"config.json\": {", name);
    CHECK(ends_in(c, BSX_ERROR_MANIFEST, "has the file 'config.json'"));
    name[size + 2] = 0;
    strcpy(name + size, "\": 3, \"x\": {");
    lie(c, "\"files\"", "\"config.json\": {", strchr(name, ',') + 2);
    CHECK(ends_in(c, BSX_ERROR_MANIFEST, "\xe2\x82\xac\xe2\x82\xac...', expected a plain name"));
    restore(c, MANIFEST);
}

/* Every bit of the manifest, and some of the others, matter. */
static void test_flipped_bits(copy *c) {
    for (int file = 0; file < FILES; file++) {
        for (size_t i = 0; i < c->size[file]; i += file == WEIGHTS ? 7 : 1) {
            const uint8_t bit = (uint8_t)(1U << i % 8);
            c->content[file][i] ^= bit;
            restore(c, file);
            c->content[file][i] ^= bit;
            CHECK_ROW(examine(c->directory).code != BSX_ERROR_NONE, files[file]);
        }
        restore(c, file);
    }
}

static void test_cut_files(const copy *c) {
    static uint8_t longer[MOST];
    for (int file = 0; file < FILES; file++) {
        char path[64];
        const size_t size = c->size[file], sizes[] = {0, 1, size / 2, size - 1, size + 1};
        const bsx_error_code unsealed = BSX_ERROR_MANIFEST; /* it is whole JSON without its line feed */
        memcpy(longer, c->content[file], size);
        for (size_t i = 0; i < 5; i++) {
            write_file(c, file, longer, sizes[i]);
            const bsx_error_code code = file ? BSX_ERROR_DAMAGED : i == 3 ? unsealed : BSX_ERROR_NO_PACKAGE;
            CHECK_ROW(ends_in(c, code, files[file]), files[file]);
        }
        path_of(c, file, path);
        remove(path);
        CHECK_ROW(ends_in(c, BSX_ERROR_FILE, "No such file or directory"), files[file]);
        mkdir(path, 0700);
        CHECK_ROW(ends_in(c, BSX_ERROR_FILE, "Is a directory"), files[file]);
        rmdir(path);
        restore(c, file);
    }
}

static void test_what_is_no_package(const copy *c) {
    static char text[100000];
    memset(text, '[', sizeof text);
    CHECK(examine("/nonexistent").code == BSX_ERROR_NO_PACKAGE);
    CHECK(examine(PACKAGE "/weights.bsx").code == BSX_ERROR_NO_PACKAGE);
    CHECK(examine("").code == BSX_ERROR_NO_PACKAGE);
    static const char *const others[] = {"", "{}", "[]", "7", "{\"format\": \"other\"}", "{\"format\": 7}", "\xff\xfe"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        write_file(c, MANIFEST, others[i], strlen(others[i]));
        CHECK_ROW(ends_in(c, BSX_ERROR_NO_PACKAGE, "is not a bsexport manifest"), others[i]);
    }
    write_file(c, MANIFEST, text, sizeof text);
    CHECK(ends_in(c, BSX_ERROR_NO_PACKAGE, "is not a bsexport manifest"));
    char path[64];
    path_of(c, MANIFEST, path);
    CHECK(truncate(path, (off_t)1 << 40) == 0); /* no disk space behind it */
    CHECK(ends_in(c, BSX_ERROR_NO_PACKAGE, "is not a bsexport manifest"));
    restore(c, MANIFEST);
}

/* Blobs that are wrong although file sizes fit: opening finds heads, decoding finds blocks. */
static void test_blobs(copy *c) {
    static uint8_t room[96704];
    bsx_package *package;
    bsx_error error;
    c->content[WEIGHTS][2176] ^= 1; /* the magic of `first` */
    restore(c, WEIGHTS);
    CHECK(bsx_package_open(c->directory, &package, &error) == BSX_ERROR_BLOB && error.status == BSX_BAD_MAGIC);
    CHECK(strstr(error.message, "weights.bsx: tensor first: BAD_MAGIC; copy the package again") != NULL);
    c->content[WEIGHTS][2176] ^= 1;
    c->content[WEIGHTS][2112] ^= 1; /* the end of the last block of `table` */
    restore(c, WEIGHTS);
    CHECK(bsx_package_open(c->directory, &package, &error) == BSX_ERROR_NONE);
    CHECK(bsx_package_decode(package, 0, room, 76800, &error) == BSX_ERROR_BLOB && error.status == BSX_BLOCK_CRC);
    CHECK(strstr(error.message, "tensor table: block 1 of 2: BLOCK_CRC; copy the package again") != NULL);
    CHECK(bsx_package_decode(package, 1, room, 13824, &error) == BSX_ERROR_NONE);
    CHECK(bsx_package_decode_all(package, room, sizeof room, &error) == BSX_ERROR_BLOB);
    CHECK(bsx_package_verify(package, &error) == BSX_ERROR_DAMAGED && error.status == BSX_OK);
    bsx_package_close(package);
    c->content[WEIGHTS][2112] ^= 1;
    c->content[WEIGHTS][2120] = 1; /* between the two */
    restore(c, WEIGHTS);
    CHECK(ends_in(c, BSX_ERROR_DAMAGED, "the bytes before tensor first are not zero"));
    c->content[WEIGHTS][2120] = 0;
    restore(c, WEIGHTS);
}

static void test_opened_often(void) {
    for (int i = 0; i < 2000; i++) { /* more often than there are file descriptors */
        bsx_package *package;
        CHECK(bsx_package_open(PACKAGE, &package, NULL) == BSX_ERROR_NONE);
        bsx_package_close(package);
    }
}

void test_package(void) {
    CHECK(strcmp(bsx_error_name(BSX_ERROR_NONE), "NONE") == 0 && strcmp(bsx_error_name(6), "MANIFEST") == 0);
    CHECK(strcmp(bsx_error_name(10), "ONNXRUNTIME_VERSION") == 0);
    CHECK(strcmp(bsx_error_name(11), "UNKNOWN") == 0 && strcmp(bsx_error_name(-1), "UNKNOWN") == 0);
    test_sound();
    copy *c = make_copy();
    CHECK(examine(c->directory).code == BSX_ERROR_NONE);
    test_lies(c);
    test_long_names(c);
    test_cut_files(c);
    test_what_is_no_package(c);
    test_blobs(c);
    test_flipped_bits(c);
    CHECK(examine(c->directory).code == BSX_ERROR_NONE);
    remove_copy(c);
    test_opened_often();
}
