#include "session.hpp"

#include <onnxruntime_c_api.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "cpu.hpp"
#include "errors.hpp"

namespace clipedge {

namespace {

// What is used here is older than this version of ONNX Runtime's interface, and newer libraries serve it: one binary
// runs with ONNX Runtime 1.16 and all that came after it.
constexpr std::uint32_t api_version = 16;

const OrtApi& api() {
    static const OrtApi* const found = OrtGetApiBase()->GetApi(api_version);
    if (!found) {
        fail(CLIPEDGE_BACKEND, "ONNX Runtime ", OrtGetApiBase()->GetVersionString(),
             " is too old: expected 1.16 or newer; install that");
    }
    return *found;
}

// Owns one of ONNX Runtime's objects.
template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

template <typename T>
Owned<T> owned(T* object, void(ORT_API_CALL* release)(T*)) {
    return Owned<T>(object, release);
}

std::string first_line(const char* text) {
    const std::string_view whole(text);
    return std::string(whole.substr(0, whole.find('\n')));
}

// Raises Error (CLIPEDGE_BACKEND) that begins with `what` unless the status is none.
void check(OrtStatus* status, const std::string& what) {
    if (!status) return;
    const Owned<OrtStatus> owner = owned(status, api().ReleaseStatus);
    fail(CLIPEDGE_BACKEND, "ONNX Runtime ", runtime_version(), " ", what, ": ",
         first_line(api().GetErrorMessage(status)));
}

// One for the process, as ONNX Runtime wants it; it is never released, since a library's static objects go in no order.
const OrtEnv* environment() {
    static const OrtEnv* const found = [] {
        OrtEnv* made = nullptr;
        check(api().CreateEnv(ORT_LOGGING_LEVEL_FATAL, "clipedge", &made), "does not start");
        return made;
    }();
    return found;
}

bool has_provider(std::string_view wanted) {
    char** names = nullptr;
    int count = 0;
    check(api().GetAvailableProviders(&names, &count), "does not say what it can do");
    const bool found = std::find(names, names + count, wanted) != names + count;
    check(api().ReleaseAvailableProviders(names, count), "does not release a list");
    return found;
}

void append_cuda(OrtSessionOptions* options, int device) {
    OrtCUDAProviderOptionsV2* made = nullptr;
    check(api().CreateCUDAProviderOptions(&made), "has no CUDA provider");
    const Owned<OrtCUDAProviderOptionsV2> cuda = owned(made, api().ReleaseCUDAProviderOptions);
    const std::string number = std::to_string(device);
    const char* const names[] = {"device_id", "use_tf32"};
    const char* const values[] = {number.c_str(), "0"};  // float32 that was asked for is not rounded to TF32
    check(api().UpdateCUDAProviderOptions(made, names, values, 2), "refuses the device");
    check(api().SessionOptionsAppendExecutionProvider_CUDA_V2(options, made), "cannot use CUDA");
    // Without it, what the provider cannot do would run on the processor, and nobody would know.
    check(api().AddSessionConfigEntry(options, "session.disable_cpu_ep_fallback", "1"), "refuses a setting");
}

Owned<OrtSessionOptions> session_options(const EngineOptions& wanted, const Variant& variant) {
    OrtSessionOptions* made = nullptr;
    check(api().CreateSessionOptions(&made), "makes no options");
    Owned<OrtSessionOptions> options = owned(made, api().ReleaseSessionOptions);
    // What goes wrong comes back as a status; nothing is printed.
    check(api().SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_FATAL), "refuses a setting");
    check(api().SetIntraOpNumThreads(made, wanted.threads), "refuses the number of threads");
    if (!wanted.spinning) {
        check(api().AddSessionConfigEntry(made, "session.force_spinning_stop", "1"), "refuses a setting");
    }
    if (products_saturate() && variant.target != "x86") {
        // Slower kernels that do not saturate; graphs for x86 need none (clipedge/backends/onnxruntime.py).
        check(api().AddSessionConfigEntry(made, "session.x64quantprecision", "1"), "refuses a setting");
    }
    if (variant.precision == "fp8") {
        // ONNX Runtime 1.32's optimizer takes FP8 for integers and gives other numbers (clipedge/backends/onnxruntime.py).
        check(api().SetSessionGraphOptimizationLevel(made, ORT_DISABLE_ALL), "refuses a setting");
    }
    if (wanted.provider == Provider::cuda) append_cuda(made, wanted.device);
    return options;
}

struct NumberType {
    std::string_view name;
    ONNXTensorElementDataType type;
    std::size_t size;
};

constexpr NumberType number_types[] = {{"uint8", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, 1},
                                       {"int64", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8},
                                       {"float32", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4}};

const NumberType& number_type(const Variant& variant) {
    for (const NumberType& one : number_types) {
        if (one.name == variant.inputs.front().dtype) return one;
    }
    fail(CLIPEDGE_BUNDLE, "the ", variant.tower, " tower takes ", variant.inputs.front().dtype,
         ", expected uint8, int64 or float32: export the bundle again");
}

// What one input has: all dimensions but the first, which is the batch.
std::size_t numbers_of_one(const Variant& variant) {
    const std::vector<std::int64_t>& shape = variant.inputs.front().shape;
    constexpr std::int64_t most = std::int64_t{1} << 31;
    std::int64_t count = 1;
    for (std::size_t i = 1; i < shape.size(); ++i) {
        if (shape[i] < 1 || count > most / shape[i]) {
            fail(CLIPEDGE_BUNDLE, "the ", variant.tower, " tower's input has no usable size: export the bundle again");
        }
        count *= shape[i];
    }
    return static_cast<std::size_t>(count);
}

}  // namespace

struct Session::Handles {
    Owned<OrtSession> session;
    Owned<OrtMemoryInfo> memory;
};

const EngineOptions& checked_options(const EngineOptions& options) {
    if (options.threads < 0 || options.device < 0) {
        fail(CLIPEDGE_USAGE, "expected threads and device of 0 or more, found ", options.threads, " and ",
             options.device);
    }
    if (options.provider == Provider::tensorrt) {
        fail(CLIPEDGE_UNSUPPORTED, "this build has no TensorRT: use CLIPEDGE_PROVIDER_CPU or CLIPEDGE_PROVIDER_CUDA, "
                                   "or the Python package");
    }
    if (!options.engine_cache.empty()) {
        fail(CLIPEDGE_USAGE, "engine_cache is TensorRT's, found it with another provider: leave it NULL");
    }
    if (options.provider == Provider::cpu) {
        if (options.device == 0) return options;
        fail(CLIPEDGE_USAGE, "device names a GPU, found ", options.device, " with the CPU: make it 0");
    }
    if (options.provider != Provider::cuda) {
        fail(CLIPEDGE_USAGE, "expected a clipedge_provider, found ", static_cast<int>(options.provider));
    }
    if (!has_provider("CUDAExecutionProvider")) {
        fail(CLIPEDGE_UNSUPPORTED, "ONNX Runtime ", runtime_version(),
             " was built without CUDA: install one that has it, or use CLIPEDGE_PROVIDER_CPU");
    }
    return options;
}

std::string runtime_version() { return OrtGetApiBase()->GetVersionString(); }

Session::Session(const std::string& path, const Variant& variant, const EngineOptions& options) : variant_(variant) {
    number_type(variant);
    numbers_of_one(variant);
    const Owned<OrtSessionOptions> settings = session_options(options, variant);
    OrtSession* session = nullptr;
    check(api().CreateSession(environment(), path.c_str(), settings.get(), &session), "refuses " + path);
    Owned<OrtSession> owner = owned(session, api().ReleaseSession);
    OrtMemoryInfo* memory = nullptr;
    check(api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "describes no memory");
    handles_.reset(new Handles{std::move(owner), owned(memory, api().ReleaseMemoryInfo)});
}

Session::~Session() = default;

std::size_t Session::input_bytes() const { return numbers_of_one(variant_) * number_type(variant_).size; }

void Session::run(const void* inputs, std::size_t count, float* embeddings, std::size_t dim) const {
    const NumberType& type = number_type(variant_);
    std::vector<std::int64_t> shape = variant_.inputs.front().shape;
    shape.front() = static_cast<std::int64_t>(count);
    const std::int64_t expected[] = {shape.front(), static_cast<std::int64_t>(dim)};
    const auto tensor = [this](void* data, std::size_t bytes, const std::int64_t* sizes, std::size_t dimensions,
                               ONNXTensorElementDataType kind) {
        OrtValue* made = nullptr;
        check(api().CreateTensorWithDataAsOrtValue(handles_->memory.get(), data, bytes, sizes, dimensions, kind, &made),
              "makes no tensor");
        return owned(made, api().ReleaseValue);
    };
    // ONNX Runtime takes no const, and does not write to inputs.
    const Owned<OrtValue> input =
        tensor(const_cast<void*>(inputs), count * input_bytes(), shape.data(), shape.size(), type.type);
    const Owned<OrtValue> output =
        tensor(embeddings, count * dim * sizeof(float), expected, 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    const char* const input_names[] = {variant_.inputs.front().name.c_str()};
    const char* const output_names[] = {variant_.outputs.front().name.c_str()};
    const OrtValue* const values[] = {input.get()};
    OrtValue* results[] = {output.get()};
    check(api().Run(handles_->session.get(), nullptr, input_names, values, 1, output_names, 1, results),
          "failed on the " + variant_.tower + " tower");
}

}  // namespace clipedge
