/* host.c - onnxruntime as far as the operators see it. */
#define _POSIX_C_SOURCE 200809L
#include "host.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 3 };

struct OrtTensorTypeAndShapeInfo {
    const OrtValue *of;
};

struct OrtCustomOpDomain {
    char name[32];
    const OrtCustomOp *ops[8];
    size_t count;
};

static OrtStatus *create_status(OrtErrorCode code, const char *message) {
    OrtStatus *status = calloc(1, sizeof *status);
    status->code = code;
    strncpy(status->message, message, sizeof status->message - 1);
    return status;
}

static void release_status(OrtStatus *status) { free(status); }

static OrtStatus *missing(void) { return create_status(ORT_FAIL, "host: no such attribute"); }

static OrtStatus *create_domain(const char *name, OrtCustomOpDomain **out) {
    *out = calloc(1, sizeof **out);
    strncpy((*out)->name, name, sizeof (*out)->name - 1);
    return NULL;
}

static OrtStatus *add_op(OrtCustomOpDomain *domain, const OrtCustomOp *op) {
    domain->ops[domain->count++] = op;
    return NULL;
}

static OrtStatus *add_domain(OrtSessionOptions *options, OrtCustomOpDomain *domain) {
    memcpy(options->ops, domain->ops, sizeof options->ops);
    memcpy(options->domain, domain->name, sizeof options->domain);
    options->count = domain->count;
    return NULL;
}

static void release_domain(OrtCustomOpDomain *domain) { free(domain); }

static OrtStatus *get_number(const OrtKernelInfo *info, const char *name, int64_t *out) {
    *out = strcmp(name, "transB") == 0 ? info->transposed : info->dtype;
    return *out < 0 ? missing() : NULL;
}

static OrtStatus *get_numbers(const OrtKernelInfo *info, const char *name, int64_t *out, size_t *size) {
    if (strcmp(name, "shape") != 0 || info->ndim == 0) return missing();
    if (out) memcpy(out, info->shape, info->ndim * sizeof *out);
    *size = info->ndim;
    return NULL;
}

static OrtStatus *get_name(const OrtKernelInfo *info, char *out, size_t *size) {
    (void)info;
    if (*size < 9) return create_status(ORT_FAIL, "host: no room");
    memcpy(out, "the_node", 9);
    *size = 9;
    return NULL;
}

static OrtStatus *get_constant(const OrtKernelInfo *info, size_t index, int *is_constant, const OrtValue **out) {
    (void)index;
    *is_constant = info->blob != NULL;
    *out = info->blob;
    return NULL;
}

static OrtStatus *get_info(const OrtValue *value, OrtTensorTypeAndShapeInfo **out) {
    *out = malloc(sizeof **out);
    (*out)->of = value;
    return NULL;
}

static void release_info(OrtTensorTypeAndShapeInfo *info) { free(info); }

static OrtStatus *get_type(const OrtTensorTypeAndShapeInfo *info, ONNXTensorElementDataType *out) {
    *out = info->of->type;
    return NULL;
}

static OrtStatus *get_rank(const OrtTensorTypeAndShapeInfo *info, size_t *out) {
    *out = info->of->rank;
    return NULL;
}

static OrtStatus *get_dims(const OrtTensorTypeAndShapeInfo *info, int64_t *dims, size_t rank) {
    memcpy(dims, info->of->dims, rank * sizeof *dims);
    return NULL;
}

static OrtStatus *get_count(const OrtTensorTypeAndShapeInfo *info, size_t *out) {
    *out = info->of->count;
    return NULL;
}

static OrtStatus *get_data(OrtValue *value, void **out) {
    *out = value->data;
    return NULL;
}

static OrtStatus *get_input(const OrtKernelContext *context, size_t index, const OrtValue **out) {
    *out = context->inputs[index];
    return NULL;
}

static OrtStatus *get_output(OrtKernelContext *context, size_t index, const int64_t *dims, size_t rank, OrtValue **out) {
    OrtValue *made = &context->output;
    (void)index;
    made->type = context->output_type;
    made->rank = rank;
    made->count = 1;
    for (size_t i = 0; i < rank; i++) {
        made->dims[i] = dims[i];
        made->count *= (size_t)dims[i];
    }
    const size_t item = made->type == ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE  ? 8
                        : made->type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? 4
                                                                            : 2;
    made->data = malloc(made->count * item + 1);
    *out = made;
    return NULL;
}

typedef struct share {
    void (*function)(void *, size_t);
    void *user;
    size_t first, total;
} share;

static void *run_share(void *given) {
    const share *s = given;
    for (size_t i = s->first; i < s->total; i += THREADS) s->function(s->user, i);
    return NULL;
}

static OrtStatus *parallel_for(const OrtKernelContext *context, void (*function)(void *, size_t), size_t total,
                               size_t batches, void *user) {
    pthread_t threads[THREADS];
    share shares[THREADS];
    (void)context;
    (void)batches;
    for (size_t i = 0; i < THREADS; i++) {
        const share s = {function, user, i, total};
        shares[i] = s;
        pthread_create(&threads[i], NULL, run_share, &shares[i]);
    }
    for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    return NULL;
}

static const OrtApi api = {
    .CreateStatus = create_status,
    .ReleaseStatus = release_status,
    .CreateCustomOpDomain = create_domain,
    .CustomOpDomain_Add = add_op,
    .AddCustomOpDomain = add_domain,
    .ReleaseCustomOpDomain = release_domain,
    .KernelInfoGetAttribute_int64 = get_number,
    .KernelInfoGetAttributeArray_int64 = get_numbers,
    .KernelInfo_GetNodeName = get_name,
    .KernelInfoGetConstantInput_tensor = get_constant,
    .GetTensorTypeAndShape = get_info,
    .ReleaseTensorTypeAndShapeInfo = release_info,
    .GetTensorElementType = get_type,
    .GetDimensionsCount = get_rank,
    .GetDimensions = get_dims,
    .GetTensorShapeElementCount = get_count,
    .GetTensorMutableData = get_data,
    .KernelContext_GetInput = get_input,
    .KernelContext_GetOutput = get_output,
    .KernelContext_ParallelFor = parallel_for,
};

static const OrtApi *get_api(uint32_t version) { return version <= BSX_ORT_OPS_API ? &api : NULL; }
static const OrtApi *get_old_api(uint32_t version) { return version < BSX_ORT_OPS_API ? &api : NULL; }
static const char *get_version(void) { return "1.21.1"; }

const OrtApiBase host = {get_api, get_version};
const OrtApiBase old_host = {get_old_api, get_version};

void host_clear(OrtKernelContext *context) {
    free(context->output.data);
    context->output.data = NULL;
}
