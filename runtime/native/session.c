/* session.c - onnxruntime sessions of a package (section 8): whose weights are decoded, or stay as they are stored. */
#include <stdio.h>
#include <string.h>

#include "bsx_ops.h"
#include "ort.h"
#include "package.h"

#define FIRST_MAJOR 1 /* the first onnxruntime that uses the buffers of external files in place: 1.31 */
#define FIRST_MINOR 31
#define ERRORS 3 /* log level: on the one below, it says of every weight that it was not folded, which is meant */

#if defined(_WIN32)
#define FILE_NAME(text) L##text
#else
#define FILE_NAME(text) text
#endif

/* The files that a mode's graph is and takes its weights from. */
static const struct {
    const char *graph;
    const ORTCHAR_T *weights;
} forms[] = {
    {"decoded.onnx", FILE_NAME("arena.bin")}, /* no such file exists: it is the name of the arena */
    {"model.onnx", FILE_NAME("weights.bsx")},
};

/* Nothing makes a second copy of a weight: no direct buffers means a copy, prepacking copies every matrix, and constant
 * folding would copy what it folds. The same settings as in session.py. */
static const char *const config[][2] = {
    {"session.use_external_initializer_file_buffers_directly", "1"},
    {"session.disable_prepacking", "1"},
    {"optimization.constant_folding_max_output_size_in_bytes", "4096"},
};

/* One call of bsx_create_session. */
typedef struct making {
    bsx_package *package;
    const OrtApiBase *base;
    const OrtApi *api;
    const OrtEnv *env;
    bsx_mode mode;
    bsx_error *error;
} making;

/* Turn a status of onnxruntime into an error, on one line, and release it. */
static bsx_error_code refused(const making *m, OrtStatus *status) {
    char reason[BSX_MESSAGE_BYTES];
    size_t length = 0;
    if (status == NULL) return BSX_ERROR_NONE;
    for (const char *p = m->api->GetErrorMessage(status); *p && length + 1 < sizeof reason; p++) {
        const bool space = *p == ' ' || *p == '\n' || *p == '\r' || *p == '\t';
        if (!space) reason[length++] = *p;
        else if (length > 0 && reason[length - 1] != ' ') reason[length++] = ' ';
    }
    reason[length] = 0;
    m->api->ReleaseStatus(status);
    return bsx_fail(m->error, BSX_ERROR_ONNXRUNTIME, "%s: onnxruntime %s refuses its %s: %s", m->package->directory,
                    m->base->GetVersionString(), forms[m->mode].graph, reason);
}

static bsx_error_code check_version(making *m) {
    unsigned major = 0, minor = 0;
    const char *version = m->base->GetVersionString();
    const bool known = sscanf(version, "%u.%u", &major, &minor) == 2;
    m->api = m->base->GetApi(BSX_ORT_SESSION_API);
    if (known && m->api && (major > FIRST_MAJOR || (major == FIRST_MAJOR && minor >= FIRST_MINOR))) return BSX_ERROR_NONE;
    return bsx_fail(m->error, BSX_ERROR_ONNXRUNTIME_VERSION,
                    "onnxruntime %s would copy the weights, so that loading takes twice their memory; update it to %d.%d",
                    version, FIRST_MAJOR, FIRST_MINOR);
}

/* Decode all tensors, unless an earlier session has. */
static bsx_error_code prepare_arena(const making *m) {
    bsx_package *p = m->package;
    if (p->arena) return BSX_ERROR_NONE;
    const uint64_t bytes = bsx_package_arena_bytes(p);
    void *arena = bytes <= SIZE_MAX ? bsx_allocate_pages((size_t)bytes) : NULL;
    if (arena == NULL) {
        return bsx_fail(m->error, BSX_ERROR_MEMORY, "%s: its decoded weights take %llu bytes of memory; try BSX_MODE_CODED",
                        p->directory, (unsigned long long)bytes);
    }
    const bsx_error_code code = bsx_package_decode_all(p, arena, (size_t)bytes, m->error);
    if (code) bsx_free_pages(arena, (size_t)bytes);
    else p->arena = arena;
    return code;
}

/* The caller's options, or ours: to be released by the caller. */
static OrtStatus *copy_options(const making *m, const OrtSessionOptions *given, OrtSessionOptions **options) {
    if (given) return m->api->CloneSessionOptions(given, options);
    OrtStatus *status = m->api->CreateSessionOptions(options);
    if (status == NULL) status = m->api->SetSessionLogSeverityLevel(*options, ERRORS);
    /* Its plan reserves as much address space again as the weights take; nothing is ever put there. */
    if (status == NULL) status = m->api->DisableMemPattern(*options);
    return status;
}

/* Settings that the caller has made stay: who makes them knows why. */
static OrtStatus *configure(const making *m, OrtSessionOptions *options) {
    OrtStatus *status = NULL;
    for (size_t i = 0; i < sizeof config / sizeof config[0] && status == NULL; i++) {
        int made = 0;
        status = m->api->HasSessionConfigEntry(options, config[i][0], &made);
        if (status == NULL && !made) status = m->api->AddSessionConfigEntry(options, config[i][0], config[i][1]);
    }
    return status;
}

static OrtStatus *lend_weights(const making *m, OrtSessionOptions *options) {
    const bsx_package *p = m->package;
    const bool decoded = m->mode == BSX_MODE_FLOAT32;
    char *buffer = decoded ? p->arena : (char *)(uintptr_t)p->weights.data; /* which is only read */
    const size_t bytes = decoded ? bsx_arena_size(p) : (size_t)p->weights.size;
    /* Even without weights: onnxruntime reads external data from the disk only where it is told of no such file. */
    const size_t length = bytes ? bytes : 1;
    return m->api->AddExternalInitializersFromFilesInMemory(options, &forms[m->mode].weights, &buffer, &length, 1);
}

static OrtStatus *create(const making *m, const bsx_file *graph, const OrtSessionOptions *given, OrtSession **session) {
    OrtSessionOptions *options = NULL;
    OrtStatus *status = copy_options(m, given, &options);
    if (status == NULL) status = configure(m, options);
    if (status == NULL) status = lend_weights(m, options);
    if (status == NULL && m->mode == BSX_MODE_CODED) status = RegisterCustomOps(options, m->base);
    if (status == NULL) {
        status = m->api->CreateSessionFromArray(m->env, graph->data, (size_t)graph->size, options, session);
    }
    if (options) m->api->ReleaseSessionOptions(options);
    return status;
}

bsx_error_code bsx_create_session(bsx_package *package, const OrtApiBase *onnxruntime, const OrtEnv *env,
                                  const OrtSessionOptions *options, bsx_mode mode, OrtSession **session,
                                  bsx_error *error) {
    if (session) *session = NULL;
    if (package == NULL || onnxruntime == NULL || env == NULL || session == NULL) {
        return bsx_fail(error, BSX_ERROR_ARGUMENT, "bsx_create_session: package, onnxruntime, env or session is NULL");
    }
    if (mode != BSX_MODE_FLOAT32 && mode != BSX_MODE_CODED) {
        return bsx_fail(error, BSX_ERROR_ARGUMENT, "bsx_create_session: mode is %d, expected one of bsx_mode", (int)mode);
    }
    making m = {package, onnxruntime, NULL, env, mode, error};
    bsx_file graph;
    bsx_error_code code = check_version(&m);
    if (code) return code;
    code = bsx_package_read(package, forms[mode].graph, &graph, error);
    if (!code && mode == BSX_MODE_FLOAT32) code = prepare_arena(&m);
    if (!code) code = refused(&m, create(&m, &graph, options, session));
    bsx_file_close(&graph);
    if (code) *session = NULL;
    return code ? code : bsx_succeed(error);
}
