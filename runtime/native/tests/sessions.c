/* sessions.c - sessions of a package on a real onnxruntime, by its C ABI; ../../tests/test_c_sessions.py builds and runs it.
 *
 *     sessions check PACKAGE       what does not depend on what is computed; PACKAGE: a copy of ../../tests/package
 *     sessions run PACKAGE MODE    writes the scores of IDS to stdout, as float32; or the error's name and message
 */
#include <stdio.h>
#include <string.h>

#include "bsx_package.h"
#include "check.h"
#include "ort.h"

enum { ROWS = 2, COLS = 3, SCORES = 40 };

#if defined(__SANITIZE_ADDRESS__) /* it keeps what is freed, so that growth cannot be seen */
enum { TIMES = 10, MOST_PAGES = 1 << 20 };
#else
enum { TIMES = 1000, MOST_PAGES = 512 }; /* 2 MiB; each session would be 50 kB */
#endif

static const int64_t IDS[ROWS * COLS] = {0, 11, 399, 7, 7, 123};

int checks_failed = 0;

static const OrtApi *api;
static OrtEnv *env;

static void demand(OrtStatus *status) {
    if (status == NULL) return;
    fprintf(stderr, "onnxruntime: %s\n", api->GetErrorMessage(status));
    api->ReleaseStatus(status);
    checks_failed++;
}

static void run(OrtSession *session, float scores[ROWS * COLS * SCORES]) {
    static const char *const input = "ids", *const output = "scores";
    const int64_t shape[2] = {ROWS, COLS};
    int64_t ids[ROWS * COLS];
    OrtMemoryInfo *memory;
    OrtValue *value, *result = NULL;
    void *found;
    memcpy(ids, IDS, sizeof ids);
    demand(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    demand(api->CreateTensorWithDataAsOrtValue(memory, ids, sizeof ids, shape, 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
                                               &value));
    demand(api->Run(session, NULL, &input, (const OrtValue *const *)&value, 1, &output, 1, &result));
    if (result) {
        demand(api->GetTensorMutableData(result, &found));
        memcpy(scores, found, ROWS * COLS * SCORES * sizeof *scores);
        api->ReleaseValue(result);
    }
    api->ReleaseValue(value);
    api->ReleaseMemoryInfo(memory);
}

static int print_scores(const char *directory, const char *mode) {
    float scores[ROWS * COLS * SCORES];
    bsx_package *package;
    OrtSession *session = NULL;
    bsx_error error;
    if (bsx_package_open(directory, &package, &error) == BSX_ERROR_NONE) {
        bsx_create_session(package, OrtGetApiBase(), env, NULL,
                           strcmp(mode, "coded") == 0 ? BSX_MODE_CODED : BSX_MODE_FLOAT32, &session, &error);
    }
    if (session) {
        run(session, scores);
        fwrite(scores, 1, sizeof scores, stdout);
        api->ReleaseSession(session);
    } else {
        printf("%s: %s\n", bsx_error_name(error.code), error.message);
    }
    bsx_package_close(package);
    return checks_failed != 0 || session == NULL;
}

/* ---- check ---- */

static const char *version; /* that the onnxruntime below pretends to have */

static const char *pretended_version(void) { return version; }

static const OrtApi *no_api(uint32_t number) {
    (void)number;
    return NULL;
}

static void check_versions(bsx_package *package) {
    static const char *const old[] = {"1.30.2", "1.9.1", "0.40.0", "", "unknown"}, *const young[] = {"1.31.0", "2.0.0-dev"};
    OrtApiBase base = {OrtGetApiBase()->GetApi, pretended_version};
    OrtSession *session;
    bsx_error error;
    for (size_t i = 0; i < 5; i++) {
        version = old[i];
        CHECK_ROW(bsx_create_session(package, &base, env, NULL, BSX_MODE_CODED, &session, &error) ==
                      BSX_ERROR_ONNXRUNTIME_VERSION && session == NULL, version);
        CHECK_ROW(strstr(error.message, "would copy the weights, so that loading takes twice their memory; update it to "
                                        "1.31"), version);
    }
    for (size_t i = 0; i < 2; i++) {
        version = young[i];
        CHECK_ROW(bsx_create_session(package, &base, env, NULL, BSX_MODE_FLOAT32, &session, &error) == BSX_ERROR_NONE,
                  error.message);
        if (session) api->ReleaseSession(session);
    }
    base.GetApi = no_api;
    CHECK(bsx_create_session(package, &base, env, NULL, 0, &session, NULL) == BSX_ERROR_ONNXRUNTIME_VERSION);
}

static void check_arguments(bsx_package *package) {
    const OrtApiBase *base = OrtGetApiBase();
    OrtSession *session;
    bsx_error error;
    CHECK(bsx_create_session(NULL, base, env, NULL, BSX_MODE_CODED, &session, &error) == BSX_ERROR_ARGUMENT);
    CHECK(bsx_create_session(package, NULL, env, NULL, BSX_MODE_CODED, &session, NULL) == BSX_ERROR_ARGUMENT);
    CHECK(bsx_create_session(package, base, NULL, NULL, BSX_MODE_CODED, &session, NULL) == BSX_ERROR_ARGUMENT);
    CHECK(bsx_create_session(package, base, env, NULL, BSX_MODE_CODED, NULL, NULL) == BSX_ERROR_ARGUMENT);
    CHECK(bsx_create_session(package, base, env, NULL, (bsx_mode)2, &session, &error) == BSX_ERROR_ARGUMENT);
    CHECK(strcmp(error.message, "bsx_create_session: mode is 2, expected one of bsx_mode") == 0 && session == NULL);
}

/* Sessions of one package in both modes at once, of options that serve several of them. */
static void check_shared(bsx_package *package) {
    static float scores[4][ROWS * COLS * SCORES];
    OrtSession *sessions[4] = {NULL, NULL, NULL, NULL};
    OrtSessionOptions *options;
    bsx_error error;
    demand(api->CreateSessionOptions(&options));
    demand(api->SetIntraOpNumThreads(options, 1));
    for (size_t i = 0; i < 4; i++) {
        CHECK_ROW(bsx_create_session(package, OrtGetApiBase(), env, options, (bsx_mode)(i % 2), &sessions[i], &error) ==
                  BSX_ERROR_NONE, error.message);
    }
    api->ReleaseSessionOptions(options);
    for (size_t i = 0; i < 4; i++) {
        if (sessions[i]) run(sessions[i], scores[i]);
        if (sessions[i]) api->ReleaseSession(sessions[i]);
    }
    CHECK(memcmp(scores[0], scores[2], sizeof scores[0]) == 0 && memcmp(scores[1], scores[3], sizeof scores[0]) == 0);
    for (size_t i = 0; i < ROWS * COLS * SCORES; i++) {
        const float difference = scores[0][i] - scores[1][i];
        CHECK(difference < 1e-5F && difference > -1e-5F);
    }
}

/* Pages in memory; 0 where the system does not say. */
static long resident(void) {
    long all = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL) return 0;
    if (fscanf(file, "%ld %ld", &all, &pages) != 2) pages = 0;
    fclose(file);
    return pages;
}

static void check_growth(const char *directory) {
    long before = 0;
    for (int i = 0; i < 2 * TIMES; i++) {
        bsx_package *package;
        OrtSession *session;
        if (i == TIMES) before = resident(); /* by then, what is kept for good is there */
        CHECK(bsx_package_open(directory, &package, NULL) == BSX_ERROR_NONE);
        CHECK(bsx_create_session(package, OrtGetApiBase(), env, NULL, (bsx_mode)(i % 2), &session, NULL) == BSX_ERROR_NONE);
        if (session) api->ReleaseSession(session);
        bsx_package_close(package);
    }
    CHECK(resident() - before < MOST_PAGES);
}

int main(int argc, char **argv) {
    api = OrtGetApiBase()->GetApi(BSX_ORT_SESSION_API);
    demand(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "sessions", &env));
    if (argc == 4 && strcmp(argv[1], "run") == 0) return print_scores(argv[2], argv[3]);
    bsx_package *package;
    if (argc != 3 || bsx_package_open(argv[2], &package, NULL)) return 2;
    check_arguments(package);
    check_versions(package);
    check_shared(package);
    bsx_package_close(package);
    check_growth(argv[2]);
    api->ReleaseEnv(env);
    if (checks_failed == 0) puts("all checks of sessions passed");
    return checks_failed != 0;
}
