/* ops_kernels.c - what an operator does for one node: the blob prepared once, and computing.
 *
 * The blob is prepared in place where it is a constant, which it is but in the bodies of If and Loop: there it is prepared
 * in each call. A kernel is only read while it computes, so that any number of threads may run one session; what a call
 * needs besides it takes from the heap and gives back. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blob.h"
#include "cores.h"
#include "ops.h"
#include "weight.h"

enum {
    MAX_TASKS = 32,   /* that share the work of a call: more than small devices have cores */
    TASK_INDICES = 16 /* of EGGather in a task, at least */
};

typedef struct kernel {
    const OrtApi *api;
    bsx_kind kind;
    unsigned cores;
    bsx_node node;
    bsx_weight weight;
    const void *prepared; /* the blob that weight was opened on; NULL: none */
} kernel;

static OrtStatus *refuse(const OrtApi *api, const char *line) { return api->CreateStatus(ORT_INVALID_ARGUMENT, line); }

static OrtStatus *no_memory(const kernel *k, uint64_t bytes) {
    char line[BSX_LINE_BYTES];
    snprintf(line, sizeof line, "%s %s: no memory for %" PRIu64 " bytes", k->node.op, k->node.name, bytes);
    return k->api->CreateStatus(ORT_FAIL, line);
}

/* ---- tensors ---- */

typedef struct tensor {
    void *data;
    size_t count;
    int64_t dims[BSX_MAX_RANK];
    size_t rank;
    ONNXTensorElementDataType type;
} tensor;

static OrtStatus *read_info(const OrtApi *api, const OrtTensorTypeAndShapeInfo *info, tensor *out) {
    BSX_TRY(api->GetTensorElementType(info, &out->type));
    BSX_TRY(api->GetTensorShapeElementCount(info, &out->count));
    BSX_TRY(api->GetDimensionsCount(info, &out->rank));
    if (out->rank > BSX_MAX_RANK) return refuse(api, "bsexport: a tensor has more than 32 dimensions");
    return api->GetDimensions(info, out->dims, out->rank);
}

static OrtStatus *read_value(const OrtApi *api, const OrtValue *value, tensor *out) {
    OrtTensorTypeAndShapeInfo *info = NULL;
    BSX_TRY(api->GetTensorTypeAndShape(value, &info));
    OrtStatus *status = read_info(api, info, out);
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (status) return status;
    return api->GetTensorMutableData((OrtValue *)(uintptr_t)value, &out->data); /* inputs are only read */
}

static OrtStatus *read_input(const kernel *k, const OrtKernelContext *context, size_t index, tensor *out) {
    const OrtValue *value = NULL;
    BSX_TRY(k->api->KernelContext_GetInput(context, index, &value));
    return read_value(k->api, value, out);
}

/* The output, which must be of the type that will be written: onnxruntime has it from bsx_infer_shape. */
static OrtStatus *make_output(const kernel *k, OrtKernelContext *context, const int64_t *dims, size_t rank, void **data) {
    OrtValue *value = NULL;
    tensor made;
    BSX_TRY(k->api->KernelContext_GetOutput(context, 0, dims, rank, &value));
    BSX_TRY(read_value(k->api, value, &made));
    *data = made.data;
    if ((int)made.type == k->node.type) return NULL;
    char line[BSX_LINE_BYTES];
    snprintf(line, sizeof line, "%s %s: onnxruntime expects type %d of it, its weight is of type %d: update onnxruntime",
             k->node.op, k->node.name, (int)made.type, k->node.type);
    return refuse(k->api, line);
}

/* ---- kernels: attributes and blob ---- */

static OrtStatus *lacks(const OrtApi *api, const bsx_node *node, const char *attribute, OrtStatus *status) {
    char line[BSX_LINE_BYTES];
    if (status) api->ReleaseStatus(status);
    snprintf(line, sizeof line, "%s %s: its attribute %s is missing or not as expected: pack the model again", node->op,
             node->name, attribute);
    return refuse(api, line);
}

static OrtStatus *read_shape(const OrtApi *api, const OrtKernelInfo *info, bsx_node *node) {
    int64_t dims[8];
    size_t ndim = 0;
    OrtStatus *status = api->KernelInfoGetAttributeArray_int64(info, "shape", NULL, &ndim);
    if (status || ndim < 1 || ndim > 8) return lacks(api, node, "shape", status);
    status = api->KernelInfoGetAttributeArray_int64(info, "shape", dims, &ndim);
    if (status) return lacks(api, node, "shape", status);
    for (size_t i = 0; i < ndim; i++) {
        if (dims[i] < 1) return lacks(api, node, "shape", NULL);
        node->dims[i] = (uint64_t)dims[i];
    }
    node->ndim = (unsigned)ndim;
    return NULL;
}

/* An attribute that is one number, from least to greatest. */
static OrtStatus *read_number(const OrtApi *api, const OrtKernelInfo *info, const bsx_node *node, const char *name,
                              int64_t least, int64_t greatest, int64_t *out) {
    OrtStatus *status = api->KernelInfoGetAttribute_int64(info, name, out);
    return status || *out < least || *out > greatest ? lacks(api, node, name, status) : NULL;
}

static OrtStatus *read_node(bsx_kind kind, const OrtApi *api, const OrtKernelInfo *info, bsx_node *node) {
    size_t size = sizeof node->name;
    OrtStatus *nameless = api->KernelInfo_GetNodeName(info, node->name, &size);
    if (nameless) { /* the name is longer: what matters is the operator */
        api->ReleaseStatus(nameless);
        snprintf(node->name, sizeof node->name, "(a node of a long name)");
    }
    int64_t number = 0;
    node->op = bsx_traits_of(kind)->name;
    node->type = BSX_FLOAT32;
    BSX_TRY(read_shape(api, info, node));
    if (kind == BSX_EG_DECODE) {
        BSX_TRY(read_number(api, info, node, "dtype", 1, INT_MAX, &number));
        node->type = (int)number;
        if (bsx_type_bytes(node->type) == 0) return lacks(api, node, "dtype", NULL);
    }
    if (kind == BSX_EG_MATMUL) {
        BSX_TRY(read_number(api, info, node, "transB", 0, 1, &number));
        node->transposed = number == 1;
        if (node->ndim != 2) return lacks(api, node, "shape", NULL);
    }
    return NULL;
}

static OrtStatus *open_blob(const kernel *k, const OrtValue *value, bsx_weight *weight, const void **blob) {
    tensor bytes;
    char line[BSX_LINE_BYTES];
    BSX_TRY(read_value(k->api, value, &bytes));
    if (!bsx_weight_open(weight, &k->node, bytes.data, bytes.count, line)) return refuse(k->api, line);
    *blob = bytes.data;
    return NULL;
}

void bsx_kernel_destroy(void *given) {
    kernel *k = given;
    if (k->prepared) bsx_weight_close(&k->weight);
    free(k);
}

static OrtStatus *fill(kernel *k, const OrtKernelInfo *info) {
    int is_constant = 0;
    const OrtValue *value = NULL;
    BSX_TRY(read_node(k->kind, k->api, info, &k->node));
    BSX_TRY(k->api->KernelInfoGetConstantInput_tensor(info, bsx_traits_of(k->kind)->blob, &is_constant, &value));
    return is_constant && value ? open_blob(k, value, &k->weight, &k->prepared) : NULL;
}

OrtStatus *bsx_kernel_create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    kernel *k = calloc(1, sizeof *k);
    if (!k) return api->CreateStatus(ORT_FAIL, "bsexport: no memory for a kernel");
    k->api = api;
    k->kind = ((const bsx_op *)op)->kind;
    k->cores = bsx_cores();
    OrtStatus *status = fill(k, info);
    if (status) bsx_kernel_destroy(k);
    else *out = k;
    return status;
}

/* ---- computing: the kernel's weight, or that of this call ---- */

typedef OrtStatus *(*compute)(const kernel *k, const bsx_weight *weight, OrtKernelContext *context);

static OrtStatus *with_weight(const kernel *k, OrtKernelContext *context, compute function) {
    tensor blob;
    BSX_TRY(read_input(k, context, bsx_traits_of(k->kind)->blob, &blob));
    /* An empty tensor may have no data. */
    if (k->prepared && k->prepared == blob.data) return function(k, &k->weight, context);
    bsx_weight weight;
    char line[BSX_LINE_BYTES];
    if (!bsx_weight_open(&weight, &k->node, blob.data, blob.count, line)) return refuse(k->api, line);
    OrtStatus *status = function(k, &weight, context);
    bsx_weight_close(&weight);
    return status;
}

/* Parts that tasks share: task i of `tasks` takes the parts i, i + tasks ... with scratch of its own. */
typedef struct job {
    bsx_status (*part)(const struct job *job, uint64_t part, void *scratch, uint64_t *bad_block);
    const void *what; /* for part */
    uint64_t parts, scratch_bytes;
    size_t tasks;
    struct outcome {
        bsx_status status;
        uint64_t bad_block;
        bool no_memory;
    } outcomes[MAX_TASKS];
} job;

static void run_task(void *given, size_t task) {
    job *j = given;
    struct outcome *outcome = &j->outcomes[task];
    void *scratch = malloc(j->scratch_bytes ? (size_t)j->scratch_bytes : 1);
    outcome->no_memory = !scratch;
    for (uint64_t part = task; part < j->parts && scratch && outcome->status == BSX_OK; part += j->tasks)
        outcome->status = j->part(j, part, scratch, &outcome->bad_block);
    free(scratch);
}

static OrtStatus *run_job(const kernel *k, OrtKernelContext *context, job *j) {
    j->tasks = (size_t)(j->parts < MAX_TASKS ? j->parts : MAX_TASKS);
    memset(j->outcomes, 0, sizeof j->outcomes);
    if (j->tasks == 1) run_task(j, 0);
    else BSX_TRY(k->api->KernelContext_ParallelFor(context, run_task, j->tasks, 0, j));
    for (size_t i = 0; i < j->tasks; i++) {
        const struct outcome *outcome = &j->outcomes[i];
        if (outcome->no_memory) return no_memory(k, j->scratch_bytes);
        if (outcome->status == BSX_OK) continue;
        char line[BSX_LINE_BYTES];
        bsx_weight_damaged(&k->node, outcome->status, outcome->bad_block, line);
        return refuse(k->api, line);
    }
    return NULL;
}

/* ---- EGMatMul ---- */

typedef struct product {
    const bsx_matrix *matrix;
    bsx_product plan;
    const float *x;
    float *y;
    size_t x_count, y_count;
    void *shared;
} product;

static bsx_status product_part(const job *j, uint64_t part, void *scratch, uint64_t *bad_block) {
    const product *p = j->what;
    return bsx_product_part(p->matrix, &p->plan, part, p->x, p->y, p->y_count, p->shared,
                            (size_t)p->plan.shared_bytes, scratch, (size_t)p->plan.scratch_bytes, bad_block);
}

static OrtStatus *multiply(const kernel *k, OrtKernelContext *context, product *p) {
    char line[BSX_LINE_BYTES];
    const size_t shared_bytes = (size_t)p->plan.shared_bytes;
    bsx_status status = bsx_product_begin(p->matrix, &p->plan, p->x, p->x_count, p->shared, shared_bytes);
    if (status == BSX_OK) {
        job j = {.part = product_part, .what = p, .parts = p->plan.parts, .scratch_bytes = p->plan.scratch_bytes};
        BSX_TRY(run_job(k, context, &j));
        status = bsx_product_end(p->matrix, &p->plan, p->y, p->y_count, p->shared, shared_bytes);
    }
    if (status == BSX_OK) return NULL;
    bsx_weight_damaged(&k->node, status, 0, line);
    return refuse(k->api, line);
}

static OrtStatus *check_columns(const kernel *k, const tensor *x, uint64_t inner) {
    char line[BSX_LINE_BYTES];
    if (x->rank > 0 && x->dims[x->rank - 1] == (int64_t)inner) return NULL;
    if (x->rank == 0) snprintf(line, sizeof line, "%s %s: x is a scalar, expected a matrix", k->node.op, k->node.name);
    else
        snprintf(line, sizeof line, "%s %s: x has %" PRId64 " columns, expected %" PRIu64 ", as its weight has", k->node.op,
                 k->node.name, x->dims[x->rank - 1], inner);
    return refuse(k->api, line);
}

static OrtStatus *matmul(const kernel *k, const bsx_weight *weight, OrtKernelContext *context) {
    const bsx_head *head = &weight->head;
    const uint64_t inner = k->node.transposed ? head->cols : head->rows;
    const uint64_t outer = k->node.transposed ? head->rows : head->cols;
    tensor x;
    void *y = NULL;
    BSX_TRY(read_input(k, context, 0, &x));
    BSX_TRY(check_columns(k, &x, inner));
    const uint64_t n = x.count / inner;
    x.dims[x.rank - 1] = (int64_t)outer;
    BSX_TRY(make_output(k, context, x.dims, x.rank, &y));
    if (n == 0) return NULL;
    product p = {.matrix = &weight->matrix, .x = x.data, .y = y, .x_count = x.count, .y_count = (size_t)(n * outer)};
    const bsx_status status = bsx_product_plan(p.matrix, k->node.transposed, n, k->cores, &p.plan);
    if (status != BSX_OK) return refuse(k->api, "EGMatMul: this product is larger than there are addresses");
    p.shared = malloc(p.plan.shared_bytes ? (size_t)p.plan.shared_bytes : 1);
    if (!p.shared) return no_memory(k, p.plan.shared_bytes);
    OrtStatus *failed = multiply(k, context, &p);
    free(p.shared);
    return failed;
}

/* ---- EGGather ---- */

typedef struct rows {
    const bsx_matrix *matrix;
    const uint64_t *rows;
    size_t count, in_part;
    float *out;
} rows;

static bsx_status gather_part(const job *j, uint64_t part, void *scratch, uint64_t *bad_block) {
    const rows *r = j->what;
    const size_t cols = (size_t)r->matrix->head->cols, first = (size_t)part * r->in_part;
    const size_t count = r->count - first < r->in_part ? r->count - first : r->in_part;
    return bsx_gather_rows(r->matrix, r->rows + first, count, r->out + first * cols, count * cols, scratch,
                           (size_t)j->scratch_bytes, bad_block);
}

static OrtStatus *read_indices(const kernel *k, const tensor *indices, uint64_t limit, uint64_t *out) {
    for (size_t i = 0; i < indices->count; i++) {
        const int64_t index = indices->type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 ? ((const int32_t *)indices->data)[i]
                                                                                 : ((const int64_t *)indices->data)[i];
        const int64_t row = index < 0 ? index + (int64_t)limit : index;
        if (row < 0 || row >= (int64_t)limit) {
            char line[BSX_LINE_BYTES];
            snprintf(line, sizeof line, "%s %s: index %" PRId64 " is out of bounds, expected -%" PRIu64 " to %" PRIu64,
                     k->node.op, k->node.name, index, limit, limit - 1);
            return refuse(k->api, line);
        }
        out[i] = (uint64_t)row;
    }
    return NULL;
}

static OrtStatus *gather_rows(const kernel *k, OrtKernelContext *context, const bsx_weight *weight,
                              const tensor *indices, float *out) {
    uint64_t *wanted = malloc(indices->count * sizeof *wanted);
    if (!wanted) return no_memory(k, indices->count * sizeof *wanted);
    OrtStatus *status = read_indices(k, indices, weight->head.rows, wanted);
    if (!status) {
        size_t in_part = (indices->count + MAX_TASKS - 1) / MAX_TASKS;
        if (in_part < TASK_INDICES) in_part = TASK_INDICES;
        const rows r = {&weight->matrix, wanted, indices->count, in_part, out};
        job j = {.part = gather_part, .what = &r, .parts = (indices->count + in_part - 1) / in_part,
                 .scratch_bytes = bsx_gather_scratch_bytes(&weight->matrix)};
        status = run_job(k, context, &j);
    }
    free(wanted);
    return status;
}

/* onnxruntime lets any type through, since the operator takes two. */
static OrtStatus *check_indices(const kernel *k, const tensor *indices) {
    char line[BSX_LINE_BYTES];
    if (indices->type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 || indices->type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64) return NULL;
    snprintf(line, sizeof line, "%s %s: its indices are of type %d, expected %d or %d: int32 or int64", k->node.op,
             k->node.name, (int)indices->type, (int)ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
             (int)ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64);
    return refuse(k->api, line);
}

static OrtStatus *gather(const kernel *k, const bsx_weight *weight, OrtKernelContext *context) {
    const bsx_head *head = &weight->head;
    tensor indices;
    void *out = NULL;
    BSX_TRY(read_input(k, context, 1, &indices));
    BSX_TRY(check_indices(k, &indices));
    if (indices.rank + head->ndim - 1 > BSX_MAX_RANK) return refuse(k->api, "EGGather: more than 32 dimensions");
    for (unsigned i = 1; i < head->ndim; i++) indices.dims[indices.rank + i - 1] = (int64_t)head->dims[i];
    BSX_TRY(make_output(k, context, indices.dims, indices.rank + head->ndim - 1, &out));
    return indices.count ? gather_rows(k, context, weight, &indices, out) : NULL;
}

/* ---- EGDecode ---- */

typedef struct decoding {
    const bsx_weight *weight;
    uint8_t *out;
    uint64_t in_part; /* blocks */
    unsigned item_bytes;
} decoding;

static bsx_status decode_part(const job *j, uint64_t part, void *scratch, uint64_t *bad_block) {
    const decoding *d = j->what;
    const bsx_matrix *m = &d->weight->matrix;
    const uint64_t first = part * d->in_part;
    const uint64_t count = m->head->blocks - first < d->in_part ? m->head->blocks - first : d->in_part;
    const bsx_grid grid = bsx_head_grid(m->head);
    const uint64_t begin = bsx_grid_first(&grid, first);
    const uint64_t end = first + count < m->head->blocks ? bsx_grid_first(&grid, first + count) : m->head->weights;
    return bsx_decode(m->blob, m->size, m->head, m->workspace, m->workspace_bytes, first, count, 0,
                      d->out + begin * d->item_bytes, (size_t)(end - begin) * d->item_bytes, scratch,
                      (size_t)j->scratch_bytes, bad_block);
}

static OrtStatus *decode(const kernel *k, const bsx_weight *weight, OrtKernelContext *context) {
    const bsx_head *head = &weight->head;
    int64_t dims[8];
    void *out = NULL;
    for (unsigned i = 0; i < head->ndim; i++) dims[i] = (int64_t)head->dims[i];
    BSX_TRY(make_output(k, context, dims, head->ndim, &out));
    const decoding d = {weight, out, (head->blocks + MAX_TASKS - 1) / MAX_TASKS, bsx_type_bytes(k->node.type)};
    job j = {.part = decode_part, .what = &d, .parts = (head->blocks + d.in_part - 1) / d.in_part,
             .scratch_bytes = head->scratch_bytes};
    return run_job(k, context, &j);
}

OrtStatus *bsx_kernel_compute(void *given, OrtKernelContext *context) {
    static const compute functions[BSX_KINDS] = {matmul, gather, decode};
    const kernel *k = given;
    return with_weight(k, context, functions[k->kind]);
}
