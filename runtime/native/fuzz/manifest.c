/* manifest.c - fuzz target: any bytes as a manifest, as they are and with the right seal behind them. */
#include <string.h>

#include "../json.h"
#include "../package.h"
#include "target.h"

/* Walk over every value, as deep as bsx_json_check allows. */
static void walk(const char *value) {
    const bsx_json_kind kind = bsx_json_kind_of(value);
    if (kind == BSX_JSON_STRING) demand(bsx_json_read_string(value, NULL, 0) < SIZE_MAX);
    if (kind == BSX_JSON_ARRAY) {
        for (const char *p = bsx_json_first(value); p; p = bsx_json_next_element(p)) walk(p);
    }
    if (kind == BSX_JSON_OBJECT) {
        for (const char *p = bsx_json_first(value); p; p = bsx_json_next_key(p)) {
            walk(p);
            walk(bsx_json_value(p));
        }
    }
}

static void read_as_manifest(const char *content, size_t size) {
    bsx_manifest m;
    bsx_error error;
    const char *json;
    if (bsx_json_check(content, size, &json) == BSX_JSON_SOUND && (*json == '{' || *json == '[')) walk(json);
    const bsx_error_code code = bsx_read_manifest(&m, content, size, "bsexport.json", &error);
    demand(code == BSX_ERROR_NONE || (code == error.code && strlen(error.message) > 0));
    uint64_t end = 0;
    for (size_t i = 0; code == BSX_ERROR_NONE && i < m.count; i++) {
        demand(m.tensors[i].offset >= end && m.tensors[i].offset % 64 == 0 && bsx_dtype_name(m.tensors[i].dtype));
        demand(i == 0 || strcmp(m.by_name[i - 1]->name, m.by_name[i]->name) < 0);
        end = m.tensors[i].offset + m.tensors[i].bytes;
    }
    demand(code != BSX_ERROR_NONE || bsx_weights_bytes(&m) == end);
    bsx_free_manifest(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char seal[] = ",\n \"sha256\": \"", end[] = "\"\n}\n";
    const size_t tail = sizeof seal - 1 + BSX_HEX_BYTES + sizeof end - 1;
    char hex[BSX_HEX_BYTES + 1], *content = exactly(size);
    memcpy(content, data, size);
    read_as_manifest(content, size);
    free(content);
    content = exactly(size + tail);
    bsx_sha256_hex(data, size, hex);
    memcpy(content, data, size);
    memcpy(content + size, seal, sizeof seal - 1);
    memcpy(content + size + sizeof seal - 1, hex, BSX_HEX_BYTES);
    memcpy(content + size + tail - (sizeof end - 1), end, sizeof end - 1);
    read_as_manifest(content, size + tail);
    free(content);
    return 0;
}
