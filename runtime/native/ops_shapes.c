/* ops_shapes.c - the shapes of the operators' outputs, before anything is computed. */
#include "ops.h"

#include <stdbool.h>

/* What is known of an input's shape: a dim that is not known has a name or none, and is -1. */
typedef struct known {
    int64_t dims[BSX_MAX_RANK];
    const char *names[BSX_MAX_RANK];
    size_t rank;
    ONNXTensorElementDataType type; /* of the output */
} known;

static OrtStatus *read_known(const OrtApi *api, const OrtShapeInferContext *context, size_t index, known *out) {
    OrtTensorTypeAndShapeInfo *info = NULL;
    BSX_TRY(api->ShapeInferContext_GetInputTypeShape(context, index, &info));
    BSX_TRY(api->GetDimensionsCount(info, &out->rank));
    if (out->rank > BSX_MAX_RANK) out->rank = 0; /* computing will refuse it */
    BSX_TRY(api->GetDimensions(info, out->dims, out->rank));
    return api->GetSymbolicDimensions(info, out->names, out->rank);
}

/* The node's shape; *ndim is 0 if it has none, which making the kernel will say. */
static void infer_weight(const OrtApi *api, const OrtShapeInferContext *context, int64_t dims[8], size_t *ndim) {
    const OrtOpAttr *attribute = NULL;
    size_t bytes = 0;
    *ndim = 0;
    OrtStatus *status = api->ShapeInferContext_GetAttribute(context, "shape", &attribute);
    if (!status) status = api->ReadOpAttr(attribute, ORT_OP_ATTR_INTS, dims, 8 * sizeof *dims, &bytes);
    if (status) api->ReleaseStatus(status);
    else *ndim = bytes / sizeof *dims;
}

static OrtStatus *set_known(const OrtApi *api, OrtShapeInferContext *context, const known *k) {
    OrtTensorTypeAndShapeInfo *info = NULL;
    BSX_TRY(api->CreateTensorTypeAndShapeInfo(&info));
    OrtStatus *status = api->SetTensorElementType(info, k->type);
    if (!status) status = api->SetDimensions(info, k->dims, k->rank);
    if (!status) status = api->SetSymbolicDimensions(info, (const char **)(uintptr_t)k->names, k->rank);
    if (!status) status = api->ShapeInferContext_SetOutputTypeShape(context, 0, info);
    api->ReleaseTensorTypeAndShapeInfo(info);
    return status;
}

/* An attribute that is one number; false: there is none. */
static bool infer_number(const OrtApi *api, const OrtShapeInferContext *context, const char *name, int64_t *out) {
    const OrtOpAttr *attribute = NULL;
    size_t bytes = 0;
    OrtStatus *status = api->ShapeInferContext_GetAttribute(context, name, &attribute);
    if (!status) status = api->ReadOpAttr(attribute, ORT_OP_ATTR_INT, out, sizeof *out, &bytes);
    if (status) api->ReleaseStatus(status);
    return !status;
}

/* Has each dim a number or a name? Others cannot be told to onnxruntime. */
static bool all_known(const known *k) {
    for (size_t i = 0; i < k->rank; i++)
        if (k->dims[i] < 0 && k->names[i][0] == 0) return false;
    return true;
}

OrtStatus *bsx_infer_shape(const OrtCustomOp *op, OrtShapeInferContext *context) {
    const bsx_op *o = (const bsx_op *)op;
    int64_t dims[8];
    size_t ndim;
    known out;
    infer_weight(o->api, context, dims, &ndim);
    if (ndim == 0) return NULL;
    size_t first = 0; /* of the weight's dims, those that follow the input's */
    out.rank = 0;
    out.type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    if (o->kind == BSX_EG_MATMUL) {
        int64_t transposed = 0;
        BSX_TRY(read_known(o->api, context, 0, &out));
        if (out.rank == 0 || ndim != 2 || !infer_number(o->api, context, "transB", &transposed)) return NULL;
        out.rank--;
        first = 1;
        dims[1] = dims[transposed ? 0 : 1];
    } else if (o->kind == BSX_EG_GATHER) {
        BSX_TRY(read_known(o->api, context, 1, &out));
        if (out.rank == 0) return NULL; /* a scalar, or not known */
        first = 1;
    } else {
        int64_t type = 0;
        if (!infer_number(o->api, context, "dtype", &type)) return NULL;
        out.type = (ONNXTensorElementDataType)type;
    }
    for (; first < ndim && out.rank < BSX_MAX_RANK; first++) {
        out.names[out.rank] = "";
        out.dims[out.rank++] = dims[first];
    }
    return all_known(&out) ? set_known(o->api, context, &out) : NULL;
}
