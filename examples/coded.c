/* Run a package's coded graph in plain onnxruntime: it takes no more than the library with the operators. Build it with
 *
 *     cc coded.c -lonnxruntime -o coded
 *     ./coded PACKAGE LIBBSX INPUT OUTPUT ID...     such as: ./coded model-bsx /usr/lib/libbsx.so ids scores 7 8 9
 *
 * INPUT takes the ids as int64 [1, n]; the values of OUTPUT, float32, are printed one a line. */
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 512 };

static const OrtApi *api;

/* End the program with onnxruntime's message, if there is one. */
static void check(OrtStatus *status) {
    if (status == NULL) return;
    fprintf(stderr, "%s\n", api->GetErrorMessage(status));
    exit(1);
}

int main(int argc, char **argv) {
    static int64_t ids[MOST];
    const int count = argc - 5;
    if (count < 1 || count > MOST) {
        fprintf(stderr, "usage: %s PACKAGE LIBBSX INPUT OUTPUT ID...\n", argv[0]);
        return 2;
    }
    for (int i = 0; i < count; i++) ids[i] = atoll(argv[5 + i]);

    char graph[4096];
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    api = OrtGetApiBase()->GetApi(18);
    snprintf(graph, sizeof graph, "%s/model.onnx", argv[1]);
    check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "coded", &env));
    check(api->CreateSessionOptions(&options));
    check(api->RegisterCustomOpsLibrary_V2(options, argv[2]));
    check(api->CreateSession(env, graph, options, &session));

    const int64_t shape[2] = {1, count};
    const char *const inputs[1] = {argv[3]}, *const outputs[1] = {argv[4]};
    OrtMemoryInfo *memory;
    OrtValue *x, *y = NULL;
    check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    check(api->CreateTensorWithDataAsOrtValue(memory, ids, (size_t)count * sizeof *ids, shape, 2,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &x));
    check(api->Run(session, NULL, inputs, (const OrtValue *const *)&x, 1, outputs, 1, &y));

    OrtTensorTypeAndShapeInfo *info;
    size_t values;
    void *data;
    check(api->GetTensorTypeAndShape(y, &info));
    check(api->GetTensorShapeElementCount(info, &values));
    check(api->GetTensorMutableData(y, &data));
    for (size_t i = 0; i < values; i++) printf("%.6f\n", (double)((const float *)data)[i]);

    api->ReleaseTensorTypeAndShapeInfo(info);
    api->ReleaseValue(y);
    api->ReleaseValue(x);
    api->ReleaseMemoryInfo(memory);
    api->ReleaseSession(session);
    api->ReleaseSessionOptions(options);
    api->ReleaseEnv(env);
    return 0;
}
