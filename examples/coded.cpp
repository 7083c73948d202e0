// Run a package's coded graph in plain onnxruntime from C++. Build and run with
//
//     c++ -std=c++17 coded.cpp -lonnxruntime -o coded
//     ./coded PACKAGE LIBBSX INPUT OUTPUT ID...     such as: ./coded model-bsx /usr/lib/libbsx.so ids scores 7 8 9
//
// INPUT takes the ids as int64 [1, n]; the values of OUTPUT, float32, are printed one a line. In onnxruntime_cxx_api.h,
// the one call that matters is Ort::SessionOptions::RegisterCustomOpsLibrary.
#include <onnxruntime_c_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

const OrtApi &api() {
    static const OrtApi *const found = OrtGetApiBase()->GetApi(18);
    return *found;
}

void check(OrtStatus *status) {
    if (status == nullptr) return;
    const std::string message = api().GetErrorMessage(status);
    api().ReleaseStatus(status);
    throw std::runtime_error(message);
}

// What onnxruntime makes, released as it goes out of scope.
template <typename T>
using Owned = std::unique_ptr<T, void (*)(T *)>;

template <typename T, typename Make>
Owned<T> make(void (*release)(T *), Make &&fill) {
    T *made = nullptr;
    check(fill(&made));
    return Owned<T>(made, release);
}

std::vector<float> values_of(OrtValue *tensor) {
    const auto info = make<OrtTensorTypeAndShapeInfo>(
        api().ReleaseTensorTypeAndShapeInfo, [&](auto out) { return api().GetTensorTypeAndShape(tensor, out); });
    std::size_t count = 0;
    void *data = nullptr;
    check(api().GetTensorShapeElementCount(info.get(), &count));
    check(api().GetTensorMutableData(tensor, &data));
    const float *values = static_cast<const float *>(data);
    return {values, values + count};
}

std::vector<float> run(const std::string &package, const char *library, const char *input, const char *output,
                       std::vector<std::int64_t> ids) {
    const auto env = make<OrtEnv>(api().ReleaseEnv, [](auto out) {
        return api().CreateEnv(ORT_LOGGING_LEVEL_ERROR, "coded", out);
    });
    const auto options = make<OrtSessionOptions>(api().ReleaseSessionOptions, api().CreateSessionOptions);
    check(api().RegisterCustomOpsLibrary_V2(options.get(), library));
    const auto session = make<OrtSession>(api().ReleaseSession, [&](auto out) {
        return api().CreateSession(env.get(), (package + "/model.onnx").c_str(), options.get(), out);
    });
    const auto memory = make<OrtMemoryInfo>(api().ReleaseMemoryInfo, [](auto out) {
        return api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, out);
    });
    const std::int64_t shape[] = {1, static_cast<std::int64_t>(ids.size())};
    const auto x = make<OrtValue>(api().ReleaseValue, [&](auto out) {
        const auto bytes = ids.size() * sizeof(std::int64_t);
        return api().CreateTensorWithDataAsOrtValue(memory.get(), ids.data(), bytes, shape, 2,
                                                    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, out);
    });
    const auto y = make<OrtValue>(api().ReleaseValue, [&](auto out) {
        const OrtValue *const fed = x.get();
        return api().Run(session.get(), nullptr, &input, &fed, 1, &output, 1, out);
    });
    return values_of(y.get());
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 6) {
        std::fprintf(stderr, "usage: %s PACKAGE LIBBSX INPUT OUTPUT ID...\n", argv[0]);
        return 2;
    }
    std::vector<std::int64_t> ids;
    for (int i = 5; i < argc; i++) ids.push_back(std::atoll(argv[i]));
    try {
        for (float value : run(argv[1], argv[2], argv[3], argv[4], ids)) std::printf("%.6f\n", value);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
