/* ops.h - what the parts of the operators for onnxruntime share. */
#ifndef BSX_OPS_INNER_H
#define BSX_OPS_INNER_H

#include "ort.h"

enum { BSX_MAX_RANK = 32 }; /* of the tensors that the operators take and give */

typedef enum bsx_kind { BSX_EG_MATMUL, BSX_EG_GATHER, BSX_EG_DECODE, BSX_KINDS } bsx_kind;

typedef struct bsx_op {
    OrtCustomOp abi; /* first: onnxruntime knows this part only */
    const OrtApi *api;
    bsx_kind kind;
} bsx_op;

/* What the operators are. An input of type UNDEFINED may be of any. */
typedef struct bsx_traits {
    const char *name;
    size_t inputs, blob; /* how many, and which of them is the blob */
    ONNXTensorElementDataType types[2];
} bsx_traits;

const bsx_traits *bsx_traits_of(bsx_kind kind);

/* Give up on whatever returns a status. */
#define BSX_TRY(call)                                                                                                  \
    do {                                                                                                               \
        OrtStatus *status_ = (call);                                                                                   \
        if (status_) return status_;                                                                                   \
    } while (0)

/* ---- ops_kernels.c ---- */

OrtStatus *bsx_kernel_create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **kernel);
OrtStatus *bsx_kernel_compute(void *kernel, OrtKernelContext *context);
void bsx_kernel_destroy(void *kernel);

/* ---- ops_shapes.c ---- */

/* Tell the output's shape as far as it follows from what is known of the inputs'. */
OrtStatus *bsx_infer_shape(const OrtCustomOp *op, OrtShapeInferContext *context);

#endif
