/* Classify a text by a package, without Python. Needs libbsx (make -C runtime/native install) and onnxruntime 1.31 or later.
 *
 *     cc classify.c $(pkg-config --cflags --libs libbsx) -lonnxruntime -lm -o classify
 *     ./classify PACKAGE float32|coded ID...      the ids of the text's tokens: 101 2307 3185 102
 *
 * prints each label's number and probability. */
#include <bsx_package.h>
#include <math.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOKENS = 512, MOST_INPUTS = 3 };

static const OrtApi *api;

static void check(OrtStatus *status) {
    if (status == NULL) return;
    fprintf(stderr, "%s\n", api->GetErrorMessage(status));
    exit(1);
}

int main(int argc, char **argv) {
    static int64_t ids[MOST_TOKENS], ones[MOST_TOKENS], zeros[MOST_TOKENS];
    const int64_t tokens = argc - 3, shape[2] = {1, tokens};
    if (tokens < 1 || tokens > MOST_TOKENS) return fprintf(stderr, "usage: classify PACKAGE float32|coded ID...\n"), 2;
    for (int i = 0; i < tokens; i++) ids[i] = atoll(argv[3 + i]), ones[i] = 1;

    OrtEnv *env;
    OrtSession *session;
    bsx_package *package;
    bsx_error error;
    const int coded = strcmp(argv[2], "coded") == 0;
    if (!coded && strcmp(argv[2], "float32") != 0) return fprintf(stderr, "the mode is float32 or coded\n"), 2;
    const bsx_mode mode = coded ? BSX_MODE_CODED : BSX_MODE_FLOAT32;
    api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "classify", &env));
    if (bsx_package_open(argv[1], &package, &error) ||
        bsx_create_session(package, OrtGetApiBase(), env, NULL, mode, &session, &error)) {
        return fprintf(stderr, "%s\n", error.message), 1;
    }

    OrtAllocator *allocator;
    OrtMemoryInfo *memory;
    OrtTensorTypeAndShapeInfo *info;
    OrtValue *values[MOST_INPUTS], *logits = NULL;
    char *names[MOST_INPUTS], *output;
    float *scores, sum = 0;
    size_t inputs, labels;
    check(api->GetAllocatorWithDefaultOptions(&allocator));
    check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    check(api->SessionGetOutputName(session, 0, allocator, &output));
    check(api->SessionGetInputCount(session, &inputs));
    if (inputs > MOST_INPUTS) return fprintf(stderr, "%s: takes more than a text\n", argv[1]), 1;
    for (size_t i = 0; i < inputs; i++) { /* input_ids, attention_mask, token_type_ids: as many of them as it has */
        check(api->SessionGetInputName(session, i, allocator, &names[i]));
        int64_t *data = strstr(names[i], "mask") ? ones : strstr(names[i], "type") ? zeros : ids;
        check(api->CreateTensorWithDataAsOrtValue(memory, data, (size_t)tokens * sizeof *data, shape, 2,
                                                  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &values[i]));
    }
    check(api->Run(session, NULL, (const char *const *)names, (const OrtValue *const *)values, inputs,
                   (const char *const *)&output, 1, &logits));
    check(api->GetTensorMutableData(logits, (void **)&scores));
    check(api->GetTensorTypeAndShape(logits, &info));
    check(api->GetTensorShapeElementCount(info, &labels));
    for (size_t i = 0; i < labels; i++) sum += expf(scores[i]);
    for (size_t i = 0; i < labels; i++) printf("%zu %.6f\n", i, expf(scores[i]) / sum);

    for (size_t i = 0; i < inputs; i++) api->ReleaseValue(values[i]), check(api->AllocatorFree(allocator, names[i]));
    check(api->AllocatorFree(allocator, output));
    api->ReleaseTensorTypeAndShapeInfo(info);
    api->ReleaseValue(logits);
    api->ReleaseMemoryInfo(memory);
    api->ReleaseSession(session);
    bsx_package_close(package); /* after the session, whose weights it owns */
    api->ReleaseEnv(env);
    return 0;
}
