/* host.h - the slots of onnxruntime's ABI that the operators use, in a few lines, so that they run under sanitizers, which
 * see nothing of onnxruntime itself. ParallelFor has threads of its own in each call. */
#ifndef HOST_H
#define HOST_H

#include "bsx_ops.h"
#include "ort.h"

struct OrtStatus {
    OrtErrorCode code;
    char message[512];
};

/* A tensor; data is the caller's, or from malloc for an output. */
struct OrtValue {
    ONNXTensorElementDataType type;
    int64_t dims[16];
    size_t rank, count;
    void *data;
};

/* A node: of its attributes, `shape` is left out if ndim is 0, and a number if it is below 0. */
struct OrtKernelInfo {
    int64_t shape[8];
    size_t ndim;
    int64_t transposed, dtype;
    const OrtValue *blob; /* NULL: it is no constant */
};

struct OrtKernelContext {
    const OrtValue *inputs[2];
    OrtValue output;
    ONNXTensorElementDataType output_type; /* that the session expects */
};

/* The operators that were registered. Their domain is the library's. */
struct OrtSessionOptions {
    const OrtCustomOp *ops[8];
    size_t count;
    char domain[32];
};

extern const OrtApiBase host, old_host; /* old_host: older than the operators need */

/* Give the output back. */
void host_clear(OrtKernelContext *context);

#endif
