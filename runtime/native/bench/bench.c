/* bench.c - how fast blobs are decoded and encoded, on one core: bench FILE.bsxb...
 *
 * "cache": some blocks at a time, always to the same buffer; "whole": the tensor to a large buffer that was used before;
 * "around": the same with BSX_AROUND_CACHE; "memcpy": of as many float32. Each figure is the best of several runs.
 * tests/bench/native.py reads what it prints. */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../blob.h"
#include "../kernels.h"

enum { BLOCKS_AT_A_TIME = BSX_GROUP, RUNS = 5 };

/* Processor time, so that other processes count as little as can be. */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A blob and what decoding it takes. */
typedef struct opened {
    const uint8_t *blob;
    size_t size;
    bsx_head head;
    void *workspace, *scratch;
} opened;

static void *must(void *memory) {
    if (memory == NULL) exit(fprintf(stderr, "out of memory\n"));
    return memory;
}

static void decode(const opened *o, uint64_t first, uint64_t count, unsigned flags, unsigned item_bytes, void *out) {
    const bsx_grid grid = bsx_head_grid(&o->head);
    const uint64_t end = first + count < o->head.blocks ? bsx_grid_first(&grid, first + count) : o->head.weights;
    const size_t bytes = (size_t)(end - bsx_grid_first(&grid, first)) * item_bytes;
    const bsx_status status = bsx_decode(o->blob, o->size, &o->head, o->workspace, o->head.workspace_bytes, first, count,
                                         flags, out, bytes, o->scratch, o->head.scratch_bytes, NULL);
    if (status != BSX_OK) exit(fprintf(stderr, "decode: %s\n", bsx_status_name((int)status)));
}

/* 10^9 weights a second; at_a_time: blocks of one call. The best time of each call counts, which keeps other processes
 * out of the figure. */
static double decode_speed(const opened *o, uint64_t at_a_time, unsigned flags, unsigned item_bytes, uint8_t *out) {
    double sum = 0;
    for (uint64_t i = 0; i < o->head.blocks; i += at_a_time) {
        const uint64_t count = o->head.blocks - i < at_a_time ? o->head.blocks - i : at_a_time;
        double best = 1e9;
        for (int run = 0; run < RUNS; run++) {
            const double start = now();
            decode(o, i, count, flags, item_bytes, out);
            const double time = now() - start;
            if (time < best) best = time;
        }
        sum += best;
    }
    return (double)o->head.weights / sum * 1e-9;
}

/* Of copying the decoded weights. */
static double copy_speed(const opened *o, const uint8_t *out) {
    const size_t bytes = (size_t)o->head.weights * sizeof(float);
    uint8_t *to = must(malloc(bytes));
    double best = 1e9;
    volatile uint8_t used = 0; /* else the compiler leaves the copy out */
    memset(to, 1, bytes);
    for (int run = 0; run < RUNS; run++) {
        const double start = now();
        memcpy(to, out, bytes);
        used ^= to[bytes - 1 - (size_t)run];
        const double time = now() - start;
        if (time < best) best = time;
    }
    free(to);
    return (double)o->head.weights / best * 1e-9;
}

/* Encode what was decoded again, and compare. */
static double encode_speed(const opened *o, const int32_t *levels) {
    const bsx_head *h = &o->head;
    const bsx_plan plan = {h->rows, h->cols, h->symbols, h->block_rows, h->block_cols,
                           h->layout, h->level_code, h->run_code, h->pairs};
    const size_t lookup_bytes = bsx_lookup_bytes(h->symbols), room = (size_t)h->payload_bytes + bsx_block_bound(&plan);
    int32_t *codebook = must(malloc(h->symbols * sizeof *codebook));
    uint8_t classes[BSX_MAX_PAIRED];
    uint32_t *counts = must(malloc((size_t)h->blocks * 3 * sizeof *counts));
    uint8_t *lookup = must(malloc(lookup_bytes)), *out = must(malloc(room));
    bsx_progress progress = {0, 0, 0};
    double best = 1e9;
    bsx_read_codebook(o->blob, h, codebook, h->pairs ? classes : NULL);
    bsx_lookup_prepare(codebook, h->symbols, h->pairs ? classes : NULL, lookup, lookup_bytes);
    for (int run = 0; run < 3; run++) {
        const double start = now();
        bsx_encode(&plan, levels, (size_t)h->weights, lookup, lookup_bytes, 0, h->blocks, out, room, counts,
                   (size_t)h->blocks * 3, &progress);
        const double time = now() - start;
        if (time < best) best = time;
    }
    if (progress.bytes != h->payload_bytes || memcmp(out, o->blob + h->head_bytes, progress.bytes) != 0) {
        exit(fprintf(stderr, "encoding what was decoded gives other bytes\n"));
    }
    free(codebook);
    free(counts);
    free(lookup);
    free(out);
    return (double)h->weights / best * 1e-9;
}

static void bench_type(opened *o, int type, const char *name, uint8_t *out) {
    if (!bsx_type_holds(type, &o->head)) return;
    const unsigned item_bytes = bsx_type_bytes(type);
    for (unsigned simd = 0; simd < bsx_simd_levels(); simd++) {
        bsx_prepare_with(o->blob, o->size, &o->head, type, simd, o->workspace, o->head.workspace_bytes);
        printf("  %-8s %-8s %6.3f %6.3f %6.3f\n", name, bsx_kernels_of(simd)->name,
               decode_speed(o, BLOCKS_AT_A_TIME, 0, item_bytes, out), decode_speed(o, o->head.blocks, 0, item_bytes, out),
               decode_speed(o, o->head.blocks, BSX_AROUND_CACHE, item_bytes, out));
    }
}

static void bench_blob(const char *name, uint8_t *blob, size_t size) {
    opened o = {.blob = blob, .size = size};
    const bsx_status status = bsx_parse(blob, size, &o.head);
    if (status != BSX_OK || o.head.layout == BSX_RAW) exit(fprintf(stderr, "%s: %s, or RAW\n", name, bsx_status_name((int)status)));
    o.workspace = must(malloc((size_t)o.head.workspace_bytes));
    o.scratch = must(malloc((size_t)o.head.scratch_bytes));
    uint8_t *out = must(calloc((size_t)o.head.weights, sizeof(double)));
    const char *const layouts[] = {"RAW", "EG", "RL", "BM"};
    printf("%s: %.0f weights, %s%s, codes %u and %u, %u symbols, %.3f bits/weight\n", name, (double)o.head.weights,
           layouts[o.head.layout], o.head.pairs ? " in pairs" : "", o.head.level_code, o.head.run_code, o.head.symbols,
           8.0 * (double)size / (double)o.head.weights);
    printf("  10^9 weights/s       cache  whole around\n");
    bench_type(&o, BSX_FLOAT32, "float32", out);
    bench_type(&o, BSX_FLOAT16, "float16", out);
    bench_type(&o, BSX_INT8, "int8", out);
    double start = now();
    bsx_prepare(blob, size, &o.head, BSX_INT32, o.workspace, o.head.workspace_bytes);
    const double prepare = now() - start;
    decode(&o, 0, o.head.blocks, 0, sizeof(int32_t), out);
    printf("  encode %.3f\n  memcpy %.2f\n  prepare %.0f us\n", encode_speed(&o, (const int32_t *)(void *)out),
           copy_speed(&o, out), 1e6 * prepare);
    free(o.workspace);
    free(o.scratch);
    free(out);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL) return fprintf(stderr, "%s: cannot be opened\n", argv[i]);
        fseek(file, 0, SEEK_END);
        const size_t size = (size_t)ftell(file);
        rewind(file);
        uint8_t *blob = must(malloc(size));
        if (fread(blob, 1, size, file) != size) return fprintf(stderr, "%s: cannot be read\n", argv[i]);
        fclose(file);
        bench_blob(argv[i], blob, size);
        free(blob);
    }
    return 0;
}
