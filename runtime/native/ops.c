/* ops.c - EGMatMul, EGGather and EGDecode of the domain "bsexport", made known to onnxruntime. */
#include "ops.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "bsx_ops.h"
#include "weight.h"

enum { DOMAIN_VERSION = 1 };

static const bsx_traits traits[BSX_KINDS] = {
    {"EGMatMul", 2, 1, {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8}},
    {"EGGather", 2, 0, {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED}},
    {"EGDecode", 1, 0, {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED}},
};

const bsx_traits *bsx_traits_of(bsx_kind kind) { return &traits[kind]; }

/* ---- what onnxruntime asks of an operator ---- */

static const bsx_traits *traits_of(const OrtCustomOp *abi) { return bsx_traits_of(((const bsx_op *)abi)->kind); }

static const char *op_name(const OrtCustomOp *abi) { return traits_of(abi)->name; }

static const char *op_provider(const OrtCustomOp *abi) {
    (void)abi;
    return NULL;
}

static size_t op_inputs(const OrtCustomOp *abi) { return traits_of(abi)->inputs; }

static ONNXTensorElementDataType op_input(const OrtCustomOp *abi, size_t index) { return traits_of(abi)->types[index]; }

static size_t op_outputs(const OrtCustomOp *abi) {
    (void)abi;
    return 1;
}

static ONNXTensorElementDataType op_output(const OrtCustomOp *abi, size_t index) {
    (void)index;
    return ((const bsx_op *)abi)->kind == BSX_EG_DECODE ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED
                                               : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

static OrtCustomOpInputOutputCharacteristic op_required(const OrtCustomOp *abi, size_t index) {
    (void)abi;
    (void)index;
    return INPUT_OUTPUT_REQUIRED;
}

static OrtMemType op_memory(const OrtCustomOp *abi, size_t index) {
    (void)abi;
    (void)index;
    return OrtMemTypeDefault;
}

static int op_version(const OrtCustomOp *abi) {
    (void)abi;
    return DOMAIN_VERSION;
}

static bsx_op make_op(const OrtApi *api, bsx_kind kind) {
    const OrtCustomOp abi = {
        .version = BSX_ORT_OP_VERSION,
        .GetName = op_name,
        .GetExecutionProviderType = op_provider,
        .GetInputType = op_input,
        .GetInputTypeCount = op_inputs,
        .GetOutputType = op_output,
        .GetOutputTypeCount = op_outputs,
        .KernelDestroy = bsx_kernel_destroy,
        .GetInputCharacteristic = op_required,
        .GetOutputCharacteristic = op_required,
        .GetInputMemoryType = op_memory,
        .CreateKernelV2 = bsx_kernel_create,
        .KernelComputeV2 = bsx_kernel_compute,
        .InferOutputShapeFn = bsx_infer_shape,
        .GetStartVersion = op_version,
        .GetEndVersion = op_version,
    };
    const bsx_op made = {abi, api, kind};
    return made;
}

/* ---- registration ---- */

/* The operators for one onnxruntime; a process may have several. Sessions and options point to them and do not say when
 * they end, so they stay as long as the process: one for each onnxruntime, whatever the number of sessions. The list of
 * them is the library's only state; it grows by compare-and-swap. */
typedef struct registry {
    bsx_op ops[BSX_KINDS];
    OrtCustomOpDomain *domain;
    struct registry *next;
} registry;

static registry *registries;

static registry *known_registry(registry *from, const OrtApi *api) {
    while (from && from->ops[0].api != api) from = from->next;
    return from;
}

#if defined(__GNUC__)
static registry *first_registry(void) { return __atomic_load_n(&registries, __ATOMIC_ACQUIRE); }

static bool push_registry(registry *made) {
    return __atomic_compare_exchange_n(&registries, &made->next, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
#else
static registry *first_registry(void) { return registries; }

static bool push_registry(registry *made) { /* at worst, a race of two threads makes one more */
    registries = made;
    return true;
}
#endif

static OrtStatus *make_registry(const OrtApi *api, registry *made) {
    BSX_TRY(api->CreateCustomOpDomain("bsexport", &made->domain));
    for (int i = 0; i < BSX_KINDS; i++) {
        made->ops[i] = make_op(api, (bsx_kind)i);
        BSX_TRY(api->CustomOpDomain_Add(made->domain, &made->ops[i].abi));
    }
    return NULL;
}

static void drop_registry(const OrtApi *api, registry *made) {
    if (made->domain) api->ReleaseCustomOpDomain(made->domain);
    free(made);
}

static OrtStatus *find_registry(const OrtApi *api, registry **found) {
    registry *first = first_registry();
    *found = known_registry(first, api);
    if (*found) return NULL;
    registry *made = calloc(1, sizeof *made);
    if (!made) return api->CreateStatus(ORT_FAIL, "bsexport: no memory to register its operators");
    OrtStatus *status = make_registry(api, made);
    made->next = first;
    while (!status && !push_registry(made)) {
        *found = known_registry(made->next, api);
        if (!*found) continue;
        drop_registry(api, made); /* another thread was faster */
        return NULL;
    }
    if (status) drop_registry(api, made);
    else *found = made;
    return status;
}

OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    const OrtApi *api = base->GetApi(BSX_ORT_OPS_API);
    if (!api) {
        char line[BSX_LINE_BYTES];
        snprintf(line, sizeof line, "bsexport: its operators need onnxruntime 1.%u or later, this is %s: update onnxruntime",
                 BSX_ORT_OPS_API, base->GetVersionString());
        return base->GetApi(1)->CreateStatus(ORT_NOT_IMPLEMENTED, line);
    }
    registry *found = NULL;
    BSX_TRY(find_registry(api, &found));
    return api->AddCustomOpDomain(options, found->domain);
}
