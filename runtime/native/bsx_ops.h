/* bsx_ops.h - the library's operators for onnxruntime: those of the coded graph, model.onnx (docs/format.md, section 8).
 *
 * From a program, give the library's file to RegisterCustomOpsLibrary_V2 of onnxruntime's C API, or to what a language's
 * binding makes of it (SessionOptions.register_custom_ops_library in Python); or call RegisterCustomOps, where the library
 * is linked. */
#ifndef BSX_OPS_H
#define BSX_OPS_H

#include "bsx.h"

#ifdef __cplusplus
extern "C" {
#endif

struct OrtSessionOptions;
struct OrtApiBase;
struct OrtStatus;

/* Add the domain "bsexport" to the options. onnxruntime calls it by this name. An OrtStatus, NULL on success: this
 * onnxruntime is older than 1.22, or there is no memory. May be called from any number of threads at once. */
BSX_API struct OrtStatus *RegisterCustomOps(struct OrtSessionOptions *options, const struct OrtApiBase *api);

#ifdef __cplusplus
}
#endif
#endif
