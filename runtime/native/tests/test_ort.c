/* test_ort.c - the slots of onnxruntime's C ABI, by the numbers that onnxruntime_c_api.h gives them. */
#include <stddef.h>

#include "check.h"
#include "ort.h"

#define SLOT(name, number) {#name, offsetof(OrtApi, name), number}
#define OP_SLOT(name, number) {#name, offsetof(OrtCustomOp, name), number}

typedef struct slot {
    const char *name;
    size_t offset, number;
} slot;

void test_ort(void) {
    static const slot slots[] = {
        SLOT(CreateStatus, 0), SLOT(GetErrorCode, 1), SLOT(GetErrorMessage, 2), SLOT(CreateEnv, 3),
        SLOT(CreateSession, 7), SLOT(CreateSessionFromArray, 8), SLOT(Run, 9), SLOT(CreateSessionOptions, 10),
        SLOT(CloneSessionOptions, 12), SLOT(DisableMemPattern, 17), SLOT(SetSessionLogSeverityLevel, 22), SLOT(SetIntraOpNumThreads, 24),
        SLOT(CreateCustomOpDomain, 26), SLOT(CustomOpDomain_Add, 27), SLOT(AddCustomOpDomain, 28),
        SLOT(SessionGetInputCount, 30), SLOT(SessionGetOutputCount, 31), SLOT(SessionGetInputTypeInfo, 33),
        SLOT(SessionGetOutputTypeInfo, 34), SLOT(SessionGetInputName, 36), SLOT(SessionGetOutputName, 37),
        SLOT(CreateTensorWithDataAsOrtValue, 49), SLOT(GetTensorMutableData, 51), SLOT(CastTypeInfoToTensorInfo, 55),
        SLOT(CreateTensorTypeAndShapeInfo, 57), SLOT(SetTensorElementType, 58), SLOT(SetDimensions, 59),
        SLOT(GetTensorElementType, 60), SLOT(GetDimensionsCount, 61), SLOT(GetDimensions, 62),
        SLOT(GetSymbolicDimensions, 63), SLOT(GetTensorShapeElementCount, 64), SLOT(GetTensorTypeAndShape, 65),
        SLOT(CreateCpuMemoryInfo, 69), SLOT(AllocatorAlloc, 75), SLOT(AllocatorFree, 76),
        SLOT(GetAllocatorWithDefaultOptions, 78), SLOT(KernelInfoGetAttribute_int64, 86),
        SLOT(KernelContext_GetInput, 90), SLOT(KernelContext_GetOutput, 91), SLOT(ReleaseEnv, 92),
        SLOT(ReleaseStatus, 93), SLOT(ReleaseMemoryInfo, 94), SLOT(ReleaseSession, 95), SLOT(ReleaseValue, 96),
        SLOT(ReleaseTypeInfo, 98), SLOT(ReleaseTensorTypeAndShapeInfo, 99), SLOT(ReleaseSessionOptions, 100),
        SLOT(ReleaseCustomOpDomain, 101), SLOT(AddSessionConfigEntry, 130),
        SLOT(KernelInfoGetAttributeArray_int64, 163), SLOT(RegisterCustomOpsLibrary_V2, 228),
        SLOT(HasSessionConfigEntry, 237), SLOT(KernelInfo_GetNodeName, 244),
        SLOT(KernelInfoGetConstantInput_tensor, 249), SLOT(ShapeInferContext_GetInputTypeShape, 268),
        SLOT(ShapeInferContext_GetAttribute, 269), SLOT(ShapeInferContext_SetOutputTypeShape, 270),
        SLOT(SetSymbolicDimensions, 271), SLOT(ReadOpAttr, 272), SLOT(KernelContext_ParallelFor, 274),
        SLOT(AddExternalInitializersFromFilesInMemory, 279),
    };
    static const slot ops[] = { /* the version is padded to a pointer */
        OP_SLOT(CreateKernel, 1), OP_SLOT(GetName, 2), OP_SLOT(KernelCompute, 8), OP_SLOT(KernelDestroy, 9),
        OP_SLOT(CreateKernelV2, 17), OP_SLOT(KernelComputeV2, 18), OP_SLOT(InferOutputShapeFn, 19),
        OP_SLOT(GetStartVersion, 20), OP_SLOT(GetEndVersion, 21),
    };
    for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++)
        CHECK_ROW(slots[i].offset == slots[i].number * sizeof(void *), slots[i].name);
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        CHECK_ROW(ops[i].offset == ops[i].number * sizeof(void *), ops[i].name);
    CHECK(offsetof(OrtApiBase, GetVersionString) == sizeof(void *));
}
