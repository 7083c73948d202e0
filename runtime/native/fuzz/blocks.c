/* blocks.c - fuzz target: any bytes as the blocks of a blob, behind a head that fits them. BSX_FUZZ_LAYOUT chooses the
 * layout. The blob is decoded with each kind of kernels, and all of them must agree. */
#include <string.h>

#include "../blob.h"
#include "../kernels.h"
#include "target.h"

#ifndef BSX_FUZZ_LAYOUT
#error "BSX_FUZZ_LAYOUT is one of BSX_EG, BSX_RL, BSX_BM"
#endif

enum { FIELDS = 16, HEAD = 64, MOST_BLOCKS = 12, INDEX = 12 * MOST_BLOCKS, CODEBOOK = 1024 };

static uint8_t *put(uint8_t *p, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) *p++ = (uint8_t)(value >> 8 * i);
    return p;
}

/* Append single codewords of exp-Golomb: x + 2^k after its zeros. */
static size_t put_eg(uint8_t *bits, size_t at, uint32_t x, unsigned order) {
    const uint32_t word = x + (1U << order);
    const unsigned length = bsx_eg_bits(x, order);
    for (unsigned i = length; i-- > 0; at++) {
        if (i < 32 && word >> i & 1) bits[at / 8] |= (uint8_t)(0x80 >> at % 8);
    }
    return at;
}

/* What the first bytes of the input choose. */
typedef struct choice {
    bool pairs, wide, index_4;
    uint32_t symbols, cols, blocks, cut; /* cut: how the payload is shared out among runs and levels, in 256ths */
    uint8_t level_code, run_code;
    int type;
} choice;

static choice choose(const uint8_t *f) {
    static const int types[] = {BSX_FLOAT32, BSX_INT8, BSX_INT16, BSX_INT32, BSX_FLOAT16, BSX_FLOAT64, BSX_BFLOAT16};
    choice c;
    c.pairs = BSX_FUZZ_LAYOUT != BSX_EG && f[0] % 2;
    c.wide = f[0] >> 1 & 1;
    c.index_4 = f[0] >> 2 & 1;
    c.symbols = c.pairs ? 3 + f[1] % 63U : 1 + f[1] % 80U;
    c.cols = 1 + (f[2] | (f[3] & 3U) << 8);
    c.blocks = 1 + f[4] % MOST_BLOCKS;
    c.cut = f[5];
    c.level_code = f[6] % 32;
    c.run_code = BSX_FUZZ_LAYOUT == BSX_RL ? f[7] % 32 : 0;
    c.type = types[f[8] % 7];
    return c;
}

/* The codebook 0, 1, -1, 2 ..., or with `wide` levels too large for int8_t; then the classes, some steps apart. */
static size_t put_codebook(uint8_t *bits, const choice *c, const uint8_t *f) {
    size_t at = put_eg(bits, 0, 0, 0);
    for (uint32_t i = 1; i < c->symbols; i++) at = put_eg(bits, at, c->wide && i == 1 ? 799 : 1, 0);
    for (uint32_t i = 1, class = 0; c->pairs && i < c->symbols; i++) {
        const uint32_t more = (uint32_t)f[9 + i % 4] >> i % 8 & 1U;
        const uint32_t step = class + more <= BSX_MAX_CLASS ? more : 0;
        class += step;
        at = put_eg(bits, at, step, 0);
    }
    return (at + 7) / 8;
}

/* Share the payload out among the blocks, whatever they then hold. */
static uint8_t *put_index(uint8_t *p, const choice *c, const uint8_t *f, const uint8_t *payload, size_t bytes) {
    const unsigned width = c->index_4 ? 4 : 2;
    const size_t bitmap = BSX_FUZZ_LAYOUT == BSX_BM ? (c->cols + 7) / 8 : 0;
    for (uint32_t i = 0; i < c->blocks; i++) {
        const size_t share = i + 1 == c->blocks ? bytes : bytes / (c->blocks - i);
        const size_t runs = BSX_FUZZ_LAYOUT == BSX_RL ? share * c->cut / 256 : 0;
        const uint32_t n = (f[13] | (uint32_t)f[14] << 8) * (i + 1) / c->blocks % (c->cols + 1);
        if (BSX_FUZZ_LAYOUT == BSX_RL) p = put(p, runs, width);
        p = put(p, share < bitmap ? 0 : share - runs - bitmap, width);
        if (BSX_FUZZ_LAYOUT == BSX_RL) p = put(p, share ? n : 0, width);
        p = put(p, bsx_crc32c(payload, share), 4);
        payload += share;
        bytes -= share;
    }
    return p;
}

/* The blob, in memory of exactly its size. */
static uint8_t *blob_of(const uint8_t *data, size_t size, const choice *c, size_t *blob_size) {
    static uint8_t head[HEAD + CODEBOOK + INDEX + 64];
    const uint8_t *payload = data + FIELDS;
    const size_t payload_bytes = size - FIELDS;
    memset(head, 0, sizeof head);
    const size_t codebook_bytes = put_codebook(head + HEAD, c, data);
    uint8_t *p = put(head, UINT64_C(0x42585342), 6);
    p = put(p, BSX_FUZZ_LAYOUT, 1);
    p = put(p, BSX_FLOAT32, 1);
    p = put(p, 2, 1);
    p = put(p, c->level_code, 1);
    p = put(p, c->run_code, 1);
    p = put(p, 0, 1);
    p = put(p, 0x3E800000, 4); /* step 0.25 */
    p = put(p, c->symbols, 4);
    p = put(p, 1, 4);
    p = put(p, c->cols, 4);
    p = put(p, codebook_bytes, 4);
    p = put(p, payload_bytes, 8);
    p = put(p, 0, 4);
    p = put(p, c->index_4 ? 4 : 2, 1);
    p = put(p, c->pairs, 1);
    p = put(p, 0, 2);
    p = put(p, c->blocks, 8);
    p = put(p, c->cols, 8);
    p = put_index(p + codebook_bytes, c, data, payload, payload_bytes);
    const size_t head_bytes = ((size_t)(p - head) + 63) / 64 * 64;
    put(head + 40, bsx_crc32c(head, head_bytes), 4);
    uint8_t *blob = exactly(head_bytes + payload_bytes);
    memcpy(blob, head, head_bytes);
    memcpy(blob + head_bytes, payload, payload_bytes);
    *blob_size = head_bytes + payload_bytes;
    return blob;
}

/* Decode all of a prepared blob with one kind of kernels; returns the status, and in *bad the bad block. */
static bsx_status decode(const uint8_t *blob, size_t size, const bsx_head *head, const uint8_t *workspace, unsigned simd,
                         uint8_t *out, size_t bytes, uint64_t *bad) {
    uint8_t *scratch = exactly((size_t)head->scratch_bytes);
    const bsx_workspace parts = bsx_workspace_parts(head, workspace);
    parts.setup->simd = simd;
    parts.levels->bmi2 = bsx_kernels_of(simd)->bmi2;
    if (BSX_FUZZ_LAYOUT == BSX_RL) parts.runs->bmi2 = parts.levels->bmi2;
    *bad = 0;
    const bsx_status status = bsx_decode(blob, size, head, workspace, head->workspace_bytes, 0, head->blocks,
                                         head->symbols % 2 ? BSX_AROUND_CACHE : 0, out, bytes, scratch,
                                         head->scratch_bytes, bad);
    demand(*bad < head->blocks);
    free(scratch);
    return status;
}

static void compare_kernels(const uint8_t *blob, size_t size, const bsx_head *head, int type) {
    const size_t bytes = (size_t)head->weights * bsx_type_bytes(type);
    uint8_t *workspace = exactly((size_t)head->workspace_bytes), *first = exactly(bytes), *other = exactly(bytes);
    uint64_t bad, other_bad;
    const bsx_status prepared = bsx_prepare(blob, size, head, type, workspace, head->workspace_bytes);
    demand(prepared == (bsx_type_holds(type, head) ? BSX_OK : BSX_BAD_ARGUMENT));
    if (prepared == BSX_OK) {
        const bsx_status status = decode(blob, size, head, workspace, 0, first, bytes, &bad);
        for (unsigned simd = 1; simd < bsx_simd_levels(); simd++) {
            demand(decode(blob, size, head, workspace, simd, other, bytes, &other_bad) == status && other_bad == bad);
            demand(status != BSX_OK || memcmp(first, other, bytes) == 0);
        }
    }
    free(workspace);
    free(first);
    free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < FIELDS || size > 60000) return -1;
    const choice c = choose(data);
    size_t blob_size;
    bsx_head head;
    uint8_t *blob = blob_of(data, size, &c, &blob_size);
    const bsx_status parsed = bsx_parse(blob, blob_size, &head);
    demand(parsed == BSX_OK || parsed == BSX_BAD_INDEX);
    if (parsed == BSX_OK) compare_kernels(blob, blob_size, &head, c.type);
    free(blob);
    return 0;
}
