/* ort.h - the part of onnxruntime's C ABI that the library uses.
 *
 * onnxruntime hands its functions out as a struct of pointers that only ever grows at its end, so that a slot's number is
 * its meaning for good. Types, names and numbers are those of onnxruntime_c_api.h (MIT licence, API 1 to 24); the slots in
 * between stand here as unused_N. Nothing is linked: the library meets onnxruntime when that loads it, or by
 * OrtGetApiBase. Every OrtStatus pointer is NULL on success, else the caller's to release. */
#ifndef BSX_ORT_H
#define BSX_ORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
typedef wchar_t ORTCHAR_T; /* file names */
#else
typedef char ORTCHAR_T;
#endif

/* The API version of onnxruntime 1.N is N. The slots below that are commented with a version came with it. */
#define BSX_ORT_OPS_API 22U     /* what the operators need: an output whose type bsx_infer_shape tells (EGDecode) */
#define BSX_ORT_OP_VERSION 17U  /* of OrtCustomOp, as far as it stands here */
#define BSX_ORT_SESSION_API 18U /* what sessions of packages need: AddExternalInitializersFromFilesInMemory */

#ifdef __cplusplus
extern "C" {
#endif

typedef struct OrtEnv OrtEnv;
typedef struct OrtStatus OrtStatus;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtValue OrtValue;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtShapeInferContext OrtShapeInferContext;
typedef struct OrtOpAttr OrtOpAttr;
typedef struct OrtApi OrtApi;
typedef struct OrtApiBase OrtApiBase;
typedef struct OrtCustomOp OrtCustomOp;

/* Enumerations of the ABI, as ints of the values in use. */
typedef enum OrtErrorCode { ORT_OK = 0, ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2, ORT_NOT_IMPLEMENTED = 9 } OrtErrorCode;

typedef enum OrtLoggingLevel {
    ORT_LOGGING_LEVEL_VERBOSE,
    ORT_LOGGING_LEVEL_INFO,
    ORT_LOGGING_LEVEL_WARNING,
    ORT_LOGGING_LEVEL_ERROR,
    ORT_LOGGING_LEVEL_FATAL
} OrtLoggingLevel;

/* The numbers are those of ONNX's TensorProto.DataType. */
typedef enum ONNXTensorElementDataType {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED = 0,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 = 3,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 = 6,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 = 10,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE = 11,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 = 16
} ONNXTensorElementDataType;

typedef enum OrtAllocatorType { OrtDeviceAllocator = 0, OrtArenaAllocator = 1 } OrtAllocatorType;
typedef enum OrtMemType { OrtMemTypeDefault = 0 } OrtMemType;
typedef enum OrtOpAttrType { ORT_OP_ATTR_INT = 1, ORT_OP_ATTR_INTS = 2 } OrtOpAttrType;
typedef enum OrtCustomOpInputOutputCharacteristic { INPUT_OUTPUT_REQUIRED = 0 } OrtCustomOpInputOutputCharacteristic;

struct OrtApi {
    OrtStatus *(*CreateStatus)(OrtErrorCode code, const char *message);
    OrtErrorCode (*GetErrorCode)(const OrtStatus *status);
    const char *(*GetErrorMessage)(const OrtStatus *status); /* as long as the status lives */
    OrtStatus *(*CreateEnv)(OrtLoggingLevel level, const char *logid, OrtEnv **out);
    const void *unused_4[3];
    OrtStatus *(*CreateSession)(const OrtEnv *env, const ORTCHAR_T *model_path, const OrtSessionOptions *options,
                                OrtSession **out);
    OrtStatus *(*CreateSessionFromArray)(const OrtEnv *env, const void *model, size_t model_bytes,
                                         const OrtSessionOptions *options, OrtSession **out);
    OrtStatus *(*Run)(OrtSession *session, const OrtRunOptions *run_options, const char *const *input_names,
                      const OrtValue *const *inputs, size_t input_count, const char *const *output_names,
                      size_t output_count, OrtValue **outputs);
    OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **out);
    const void *unused_11;
    OrtStatus *(*CloneSessionOptions)(const OrtSessionOptions *options, OrtSessionOptions **out);
    const void *unused_13[4];
    OrtStatus *(*DisableMemPattern)(OrtSessionOptions *options);
    const void *unused_18[4];
    OrtStatus *(*SetSessionLogSeverityLevel)(OrtSessionOptions *options, int level);
    const void *unused_23;
    OrtStatus *(*SetIntraOpNumThreads)(OrtSessionOptions *options, int threads);
    const void *unused_25;
    OrtStatus *(*CreateCustomOpDomain)(const char *domain, OrtCustomOpDomain **out);
    OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
    OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
    const void *unused_29;
    OrtStatus *(*SessionGetInputCount)(const OrtSession *session, size_t *out);
    OrtStatus *(*SessionGetOutputCount)(const OrtSession *session, size_t *out);
    const void *unused_32;
    OrtStatus *(*SessionGetInputTypeInfo)(const OrtSession *session, size_t index, OrtTypeInfo **out);
    OrtStatus *(*SessionGetOutputTypeInfo)(const OrtSession *session, size_t index, OrtTypeInfo **out);
    const void *unused_35;
    OrtStatus *(*SessionGetInputName)(const OrtSession *session, size_t index, OrtAllocator *allocator, char **out);
    OrtStatus *(*SessionGetOutputName)(const OrtSession *session, size_t index, OrtAllocator *allocator, char **out);
    const void *unused_38[11];
    OrtStatus *(*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *info, void *data, size_t data_bytes,
                                                 const int64_t *dims, size_t rank, ONNXTensorElementDataType type,
                                                 OrtValue **out);
    const void *unused_50;
    OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **out);
    const void *unused_52[3];
    OrtStatus *(*CastTypeInfoToTensorInfo)(const OrtTypeInfo *info, const OrtTensorTypeAndShapeInfo **out);
    const void *unused_56;
    OrtStatus *(*CreateTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo **out);
    OrtStatus *(*SetTensorElementType)(OrtTensorTypeAndShapeInfo *info, ONNXTensorElementDataType type);
    OrtStatus *(*SetDimensions)(OrtTensorTypeAndShapeInfo *info, const int64_t *dims, size_t rank);
    OrtStatus *(*GetTensorElementType)(const OrtTensorTypeAndShapeInfo *info, ONNXTensorElementDataType *out);
    OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *info, size_t *out);
    OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *info, int64_t *dims, size_t rank);
    OrtStatus *(*GetSymbolicDimensions)(const OrtTensorTypeAndShapeInfo *info, const char **names, size_t rank);
    OrtStatus *(*GetTensorShapeElementCount)(const OrtTensorTypeAndShapeInfo *info, size_t *out);
    OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtTensorTypeAndShapeInfo **out);
    const void *unused_66[3];
    OrtStatus *(*CreateCpuMemoryInfo)(OrtAllocatorType type, OrtMemType mem_type, OrtMemoryInfo **out);
    const void *unused_70[5];
    OrtStatus *(*AllocatorAlloc)(OrtAllocator *allocator, size_t size, void **out);
    OrtStatus *(*AllocatorFree)(OrtAllocator *allocator, void *memory);
    const void *unused_77;
    OrtStatus *(*GetAllocatorWithDefaultOptions)(OrtAllocator **out); /* never to be released */
    const void *unused_79[7];
    OrtStatus *(*KernelInfoGetAttribute_int64)(const OrtKernelInfo *info, const char *name, int64_t *out);
    const void *unused_87[3];
    OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *context, size_t index, const OrtValue **out);
    OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *context, size_t index, const int64_t *dims, size_t rank,
                                          OrtValue **out);
    void (*ReleaseEnv)(OrtEnv *);
    void (*ReleaseStatus)(OrtStatus *);
    void (*ReleaseMemoryInfo)(OrtMemoryInfo *);
    void (*ReleaseSession)(OrtSession *);
    void (*ReleaseValue)(OrtValue *);
    const void *unused_97;
    void (*ReleaseTypeInfo)(OrtTypeInfo *);
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *);
    void (*ReleaseSessionOptions)(OrtSessionOptions *);
    void (*ReleaseCustomOpDomain)(OrtCustomOpDomain *);
    const void *unused_102[28];
    OrtStatus *(*AddSessionConfigEntry)(OrtSessionOptions *options, const char *key, const char *value);
    const void *unused_131[32];
    OrtStatus *(*KernelInfoGetAttributeArray_int64)(const OrtKernelInfo *info, const char *name, int64_t *out,
                                                    size_t *size); /* out NULL: size is set */
    const void *unused_164[64];
    OrtStatus *(*RegisterCustomOpsLibrary_V2)(OrtSessionOptions *options, const ORTCHAR_T *library_name); /* 14 */
    const void *unused_229[8];
    OrtStatus *(*HasSessionConfigEntry)(const OrtSessionOptions *options, const char *key, int *out); /* 14 */
    const void *unused_238[6];
    OrtStatus *(*KernelInfo_GetNodeName)(const OrtKernelInfo *info, char *out, size_t *size); /* 15 */
    const void *unused_245[4];
    OrtStatus *(*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo *info, size_t index, int *is_constant,
                                                    const OrtValue **out); /* 15 */
    const void *unused_250[18];
    OrtStatus *(*ShapeInferContext_GetInputTypeShape)(const OrtShapeInferContext *context, size_t index,
                                                      OrtTensorTypeAndShapeInfo **out); /* 17; not to be released */
    OrtStatus *(*ShapeInferContext_GetAttribute)(const OrtShapeInferContext *context, const char *name,
                                                 const OrtOpAttr **out); /* 17 */
    OrtStatus *(*ShapeInferContext_SetOutputTypeShape)(const OrtShapeInferContext *context, size_t index,
                                                       const OrtTensorTypeAndShapeInfo *info); /* 17 */
    OrtStatus *(*SetSymbolicDimensions)(OrtTensorTypeAndShapeInfo *info, const char **names, size_t rank); /* 17 */
    OrtStatus *(*ReadOpAttr)(const OrtOpAttr *attribute, OrtOpAttrType type, void *data, size_t bytes,
                             size_t *out); /* 17; bytes, and what is needed */
    const void *unused_273;
    OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *context, void (*function)(void *, size_t),
                                            size_t total, size_t batches, void *user); /* 17 */
    const void *unused_275[4];
    OrtStatus *(*AddExternalInitializersFromFilesInMemory)(OrtSessionOptions *options, const ORTCHAR_T *const *names,
                                                           char *const *buffers, const size_t *lengths,
                                                           size_t count); /* 18 */
};

struct OrtApiBase {
    const OrtApi *(*GetApi)(uint32_t version); /* NULL: this onnxruntime is older */
    const char *(*GetVersionString)(void);
};

/* Of libonnxruntime, for programs that link it. */
const OrtApiBase *OrtGetApiBase(void);

/* An operator. `version` says how much of the struct there is; the library's are of BSX_ORT_OP_VERSION. */
struct OrtCustomOp {
    uint32_t version;
    void *(*CreateKernel)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info);
    const char *(*GetName)(const OrtCustomOp *op);
    const char *(*GetExecutionProviderType)(const OrtCustomOp *op); /* NULL: the CPU's */
    ONNXTensorElementDataType (*GetInputType)(const OrtCustomOp *op, size_t index);
    size_t (*GetInputTypeCount)(const OrtCustomOp *op);
    ONNXTensorElementDataType (*GetOutputType)(const OrtCustomOp *op, size_t index);
    size_t (*GetOutputTypeCount)(const OrtCustomOp *op);
    void (*KernelCompute)(void *kernel, OrtKernelContext *context);
    void (*KernelDestroy)(void *kernel);
    OrtCustomOpInputOutputCharacteristic (*GetInputCharacteristic)(const OrtCustomOp *op, size_t index);
    OrtCustomOpInputOutputCharacteristic (*GetOutputCharacteristic)(const OrtCustomOp *op, size_t index);
    OrtMemType (*GetInputMemoryType)(const OrtCustomOp *op, size_t index);
    int (*GetVariadicInputMinArity)(const OrtCustomOp *op);
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp *op);
    int (*GetVariadicOutputMinArity)(const OrtCustomOp *op);
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *op);
    OrtStatus *(*CreateKernelV2)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                 void **kernel);                                            /* 16 */
    OrtStatus *(*KernelComputeV2)(void *kernel, OrtKernelContext *context);                 /* 16 */
    OrtStatus *(*InferOutputShapeFn)(const OrtCustomOp *op, OrtShapeInferContext *context); /* 17 */
    int (*GetStartVersion)(const OrtCustomOp *op);                                          /* 17 */
    int (*GetEndVersion)(const OrtCustomOp *op);                                            /* 17 */
};

#ifdef __cplusplus
}
#endif
#endif
