/* main.c - the operators on files of blobs, good and bad: `test_ops FILE...`, for sanitizers.
 *
 * Of each good blob: EGDecode, EGGather and EGMatMul beside bsx_decode and sums in double; each kernel is called by many
 * threads at once. Of each bad one: no kernel is made, or computing says which block is damaged. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../blob_writer.h"
#include "../check.h"
#include "host.h"

enum { CALLERS = 16 };

int checks_failed = 0;

static OrtSessionOptions options;

static const OrtCustomOp *find_op(const char *name) {
    for (size_t i = 0; i < options.count; i++)
        if (strcmp(options.ops[i]->GetName(options.ops[i]), name) == 0) return options.ops[i];
    abort();
}

/* A blob with its weights; a type that is no float32 is compared as bytes. */
typedef struct subject {
    const char *name;
    OrtValue blob;
    bsx_head head;
    bsx_status status; /* of parsing it, or of decoding it */
    void *weights;
} subject;

static subject open_subject(const char *name, void *bytes, size_t size) {
    subject s = {.name = name, .blob = {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, {(int64_t)size}, 1, size, bytes}};
    s.status = bsx_parse(bytes, size, &s.head);
    if (s.status != BSX_OK || s.head.layout == BSX_RAW) return s;
    void *workspace = malloc(s.head.workspace_bytes), *scratch = malloc(s.head.scratch_bytes);
    s.weights = malloc(s.head.weights * s.head.item_bytes);
    s.status = bsx_prepare(bytes, size, &s.head, s.head.dtype, workspace, s.head.workspace_bytes);
    if (s.status == BSX_OK)
        s.status = bsx_decode(bytes, size, &s.head, workspace, s.head.workspace_bytes, 0, s.head.blocks, 0, s.weights,
                              s.head.weights * s.head.item_bytes, scratch, s.head.scratch_bytes, NULL);
    free(workspace);
    free(scratch);
    return s;
}

static void close_subject(subject *s) {
    free(s->weights);
    free(s->blob.data);
}

static OrtKernelInfo info_of(const subject *s, int64_t transposed) {
    OrtKernelInfo info = {.ndim = s->head.ndim, .transposed = transposed, .dtype = s->head.dtype, .blob = &s->blob};
    for (unsigned i = 0; i < s->head.ndim; i++) info.shape[i] = (int64_t)s->head.dims[i];
    return info;
}

/* The status is a refusal whose line has this in it. */
static void check_refused(OrtStatus *status, const char *part, const char *name) {
    CHECK_ROW(status != NULL, name);
    if (!status) return;
    CHECK_ROW(strstr(status->message, part) != NULL, name);
    CHECK_ROW(strchr(status->message, '\n') == NULL, name);
    free(status);
}

static void *make_kernel(const char *op, const OrtKernelInfo *info, const char *name) {
    const OrtCustomOp *found = find_op(op);
    void *kernel = NULL;
    OrtStatus *status = found->CreateKernelV2(found, host.GetApi(BSX_ORT_OPS_API), info, &kernel);
    CHECK_ROW(status == NULL, name);
    free(status);
    return kernel;
}

/* ---- one call, and many at once ---- */

typedef struct call {
    const subject *s;
    void *kernel;
    OrtValue x;
    int64_t transposed;
    void (*check)(const struct call *call, const OrtValue *y);
    bool blob_first;
    pthread_mutex_t *lock; /* of what the check writes */
} call;

static void *run_call(void *given) {
    const call *c = given;
    OrtKernelContext context = {.inputs = {c->blob_first ? &c->s->blob : &c->x, c->blob_first ? &c->x : &c->s->blob}};
    context.output_type = (ONNXTensorElementDataType)(c->x.data ? BSX_FLOAT32 : c->s->head.dtype);
    OrtStatus *status = find_op("EGMatMul")->KernelComputeV2(c->kernel, &context);
    pthread_mutex_lock(c->lock);
    if (c->s->status == BSX_OK) {
        CHECK_ROW(status == NULL, c->s->name);
        if (status == NULL) c->check(c, &context.output);
        free(status);
    } else check_refused(status, bsx_status_name(c->s->status), c->s->name);
    pthread_mutex_unlock(c->lock);
    host_clear(&context);
    return NULL;
}

static void run_calls(call *c, const char *op, const OrtKernelInfo *info) {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_t threads[CALLERS];
    c->lock = &lock;
    c->kernel = make_kernel(op, info, c->s->name);
    if (!c->kernel) return;
    for (int i = 0; i < CALLERS; i++) pthread_create(&threads[i], NULL, run_call, c);
    for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
    find_op(op)->KernelDestroy(c->kernel);
}

/* ---- what each operator must give ---- */

static void check_decoded(const call *c, const OrtValue *y) {
    CHECK_ROW(y->rank == c->s->head.ndim && y->count == c->s->head.weights, c->s->name);
    CHECK_ROW(memcmp(y->data, c->s->weights, y->count * c->s->head.item_bytes) == 0, c->s->name);
}

static void check_product(const call *c, const OrtValue *y) {
    const size_t rows = (size_t)c->s->head.rows, cols = (size_t)c->s->head.cols;
    const size_t inner = c->transposed ? cols : rows, outer = c->transposed ? rows : cols;
    const float *w = c->s->weights, *x = c->x.data, *found = y->data;
    CHECK_ROW(y->count == c->x.count / inner * outer, c->s->name);
    for (size_t i = 0; i < y->count; i++) {
        const size_t row = i / outer, unit = i % outer;
        double sum = 0, size = 0;
        for (size_t k = 0; k < inner; k++) {
            const double term = (double)x[row * inner + k] * (double)w[c->transposed ? unit * cols + k : k * cols + unit];
            sum += term;
            size += fabs(term);
        }
        CHECK_ROW(fabs((double)found[i] - sum) <= 1e-5 * size, c->s->name);
    }
}

static void check_gathered(const call *c, const OrtValue *y) {
    const size_t cols = (size_t)c->s->head.cols;
    const int64_t rows = (int64_t)c->s->head.rows, *index = c->x.data;
    CHECK_ROW(y->count == c->x.count * cols, c->s->name);
    for (size_t i = 0; i < c->x.count; i++) {
        const size_t row = (size_t)(index[i] < 0 ? index[i] + rows : index[i]);
        CHECK_ROW(memcmp((float *)y->data + i * cols, (float *)c->s->weights + row * cols, cols * sizeof(float)) == 0,
                  c->s->name);
    }
}

static void check_products(const subject *s, int64_t transposed, int64_t n) {
    const int64_t inner = (int64_t)(transposed ? s->head.cols : s->head.rows);
    const size_t count = (size_t)(n * inner);
    float *x = malloc(count * sizeof *x);
    for (size_t i = 0; i < count; i++) x[i] = (float)(i % 7) - 3;
    call c = {.s = s, .transposed = transposed, .check = check_product};
    const OrtValue value = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {n, inner}, 2, count, x};
    const OrtKernelInfo info = info_of(s, transposed);
    c.x = value;
    run_calls(&c, "EGMatMul", &info);
    free(x);
}

static void check_gathers(const subject *s, size_t count) {
    int64_t *rows = malloc(count * sizeof *rows);
    const int64_t limit = (int64_t)s->head.rows;
    for (size_t i = 0; i < count; i++) rows[i] = (int64_t)i % (2 * limit) - limit;
    call c = {.s = s, .check = check_gathered, .blob_first = true};
    const OrtValue value = {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {(int64_t)count}, 1, count, rows};
    const OrtKernelInfo info = info_of(s, -1);
    c.x = value;
    run_calls(&c, "EGGather", &info);
    free(rows);
}

static void check_decodes(const subject *s) {
    call c = {.s = s, .check = check_decoded, .blob_first = true};
    const OrtKernelInfo constant = info_of(s, -1);
    run_calls(&c, "EGDecode", &constant);
    OrtKernelInfo each_time = constant;
    each_time.blob = NULL;
    run_calls(&c, "EGDecode", &each_time);
}

static void check_no_kernel(const subject *s, const char *part) {
    const OrtApi *api = host.GetApi(BSX_ORT_OPS_API);
    OrtKernelInfo info = info_of(s, 0);
    info.ndim = info.ndim ? info.ndim : 1;
    info.shape[0] = info.shape[0] > 0 ? info.shape[0] : 1;
    for (size_t i = 1; i < info.ndim; i++) info.shape[i] = info.shape[i] > 0 ? info.shape[i] : 1;
    info.dtype = BSX_FLOAT32;
    void *kernel = NULL;
    check_refused(find_op("EGDecode")->CreateKernelV2(find_op("EGDecode"), api, &info, &kernel), part, s->name);
    CHECK_ROW(kernel == NULL, s->name);
}

static void test_blob(const char *name, void *bytes, size_t size) {
    subject s = open_subject(name, bytes, size);
    const bool damaged_block = s.status == BSX_BLOCK_CRC || s.status == BSX_BAD_STREAM;
    if (s.status != BSX_OK && !damaged_block) {
        memset(s.head.dims, 0, sizeof s.head.dims);
        s.head.ndim = 0;
        check_no_kernel(&s, bsx_status_name(s.status));
    } else if (s.head.layout == BSX_RAW) check_no_kernel(&s, "is not coded (layout RAW)");
    else {
        check_decodes(&s);
        if (s.head.dtype == BSX_FLOAT32 && s.status == BSX_OK) check_gathers(&s, 40);
        if (s.head.dtype == BSX_FLOAT32 && s.head.ndim == 2 && s.head.weights < 10000) {
            for (int64_t n = 1; n < 40; n = 3 * n + 1) {
                check_products(&s, 0, n);
                check_products(&s, 1, n);
            }
        }
    }
    close_subject(&s);
}

/* ---- a matrix of many blocks, for many threads ---- */

static uint8_t *write_many_blocks(size_t *size) {
    static const block_text row = {"", "1 010 011 1 1 010 1 00100", 0};
    const blob_text text = {BSX_EG, 1, 2, 0, 0, 1, 0.25F, 4, 1, 8, 2, 0, {8, 8}, "10 11 11 11",
                            {row, row, row, row, row, row, row, row}, 8};
    return write_blob(&text, size);
}

static void test_many_blocks(void) {
    size_t size;
    uint8_t *blob = write_many_blocks(&size);
    test_blob("eight blocks", blob, size);
}

/* ---- inputs that no graph of bsexport has ---- */

static OrtStatus *compute_once(const char *op, const OrtKernelInfo *info, const OrtValue *first, const OrtValue *second) {
    OrtKernelContext context = {.inputs = {first, second}, .output_type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT};
    void *kernel = make_kernel(op, info, op);
    if (!kernel) return NULL;
    OrtStatus *status = find_op(op)->KernelComputeV2(kernel, &context);
    find_op(op)->KernelDestroy(kernel);
    host_clear(&context);
    return status;
}

/* Indices of one byte are not read as if they were of eight. */
static void test_indices_of_another_type(const subject *s) {
    uint8_t *bytes = calloc(3, 1); /* in memory of exactly their size */
    const OrtValue indices = {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, {3}, 1, 3, bytes};
    const OrtKernelInfo info = info_of(s, -1);
    check_refused(compute_once("EGGather", &info, &s->blob, &indices), "its indices are of type 2, expected 6 or 7", "uint8");
    free(bytes);
}

/* An empty tensor has no data, which a kernel that has no constant blob has neither. */
static void test_empty_blob(const subject *s) {
    const OrtValue blob = {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, {0}, 1, 0, NULL};
    float numbers[8] = {0};
    const OrtValue x = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {1, 8}, 2, 8, numbers};
    OrtKernelInfo info = info_of(s, 0);
    info.blob = NULL;
    check_refused(compute_once("EGDecode", &info, &blob, NULL), "its blob of 0 bytes breaks the rule TRUNCATED", "EGDecode");
    check_refused(compute_once("EGMatMul", &info, &x, &blob), "its blob of 0 bytes breaks the rule TRUNCATED", "EGMatMul");
}

/* A type that does not hold the levels is an error of the graph, not of the blob. */
static void test_narrow_type(void) {
    const blob_text text = {BSX_EG, 1, 1, 0, 0, 0, 1, 1, 1, 1, 2, 0, {1}, "00000000111111110", {{"", "1", 0}}, 1};
    size_t size;
    uint8_t *blob = write_blob(&text, &size); /* one weight of level 128 */
    subject s = open_subject("level 128", blob, size);
    OrtKernelInfo info = info_of(&s, -1);
    void *kernel = NULL;
    info.dtype = BSX_INT8;
    check_refused(find_op("EGDecode")->CreateKernelV2(find_op("EGDecode"), host.GetApi(BSX_ORT_OPS_API), &info, &kernel),
                  "its attribute dtype is 3, which does not hold the levels 128 to 128 of its blob", s.name);
    close_subject(&s);
}

static void test_strange_inputs(void) {
    size_t size;
    uint8_t *blob = write_many_blocks(&size);
    subject s = open_subject("eight blocks", blob, size);
    test_indices_of_another_type(&s);
    test_empty_blob(&s);
    close_subject(&s);
    test_narrow_type();
}

static void test_registration(void) {
    OrtSessionOptions again = {.count = 0};
    CHECK(RegisterCustomOps(&options, &host) == NULL);
    CHECK(RegisterCustomOps(&again, &host) == NULL);
    CHECK(options.count == 3 && again.count == 3 && again.ops[0] == options.ops[0]);
    CHECK(strcmp(options.domain, "bsexport") == 0);
    check_refused(RegisterCustomOps(&again, &old_host),
                  "bsexport: its operators need onnxruntime 1.22 or later, this is 1.21.1: update onnxruntime", "old");
}

static void test_file(const char *path) {
    FILE *file = fopen(path, "rb");
    CHECK_ROW(file != NULL, path);
    if (!file) return;
    static uint8_t content[1 << 20];
    const size_t size = fread(content, 1, sizeof content, file);
    fclose(file);
    uint8_t *bytes = malloc(size ? size : 1); /* of exactly its size */
    memcpy(bytes, content, size);
    test_blob(path, bytes, size);
}

int main(int argc, char **argv) {
    test_registration();
    test_many_blocks();
    test_strange_inputs();
    for (int i = 1; i < argc; i++) test_file(argv[i]);
    if (checks_failed) fprintf(stderr, "%d checks failed\n", checks_failed);
    else printf("the operators passed, on %d files\n", argc - 1);
    return checks_failed != 0;
}
