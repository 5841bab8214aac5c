// libclipedge beside ONNX Runtime's own session on one input:  bindings_overhead BUNDLE GRAPH SIZE DIM ROUNDS CALLS
// The picture has the tower's size, so that nothing is resized. One thread each, since two pools would share the cores.
// Prints, for each round, the first decile of the calls' times in microseconds: "session clipedge".
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "clipedge/clipedge.hpp"

namespace {

const OrtApi& ort() { return *OrtGetApiBase()->GetApi(16); }

void check(OrtStatus* status) {
    if (!status) return;
    std::fprintf(stderr, "%s\n", ort().GetErrorMessage(status));
    std::exit(1);
}

// As src/session.cpp opens and runs it, without the rest.
class PlainSession {
public:
    PlainSession(const char* graph, std::vector<std::uint8_t>& pixels, std::int64_t size, std::vector<float>& row) {
        OrtEnv* environment = nullptr;
        OrtSessionOptions* options = nullptr;
        OrtMemoryInfo* memory = nullptr;
        check(ort().CreateEnv(ORT_LOGGING_LEVEL_ERROR, "plain", &environment));
        check(ort().CreateSessionOptions(&options));
        check(ort().SetIntraOpNumThreads(options, 1));
        check(ort().CreateSession(environment, graph, options, &session_));
        check(ort().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
        const std::int64_t shape[] = {1, size, size, 3};
        const std::int64_t result[] = {1, static_cast<std::int64_t>(row.size())};
        check(ort().CreateTensorWithDataAsOrtValue(memory, pixels.data(), pixels.size(), shape, 4,
                                                   ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &input_));
        check(ort().CreateTensorWithDataAsOrtValue(memory, row.data(), row.size() * sizeof(float), result, 2,
                                                   ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &output_));
    }

    void run() {
        const char* const inputs[] = {"pixels"};
        const char* const outputs[] = {"image_embeds"};
        check(ort().Run(session_, nullptr, inputs, &input_, 1, outputs, 1, &output_));
    }

private:
    OrtSession* session_ = nullptr;
    OrtValue* input_ = nullptr;
    OrtValue* output_ = nullptr;
};

template <typename Call>
double microseconds(const Call& call) {
    const auto start = std::chrono::steady_clock::now();
    call();
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

// What a call takes while nothing else wants the processor: other processes only ever add to it.
double first_decile(std::vector<double>& times) {
    const auto place = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 10);
    std::nth_element(times.begin(), place, times.end());
    return *place;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 7) {
        std::fprintf(stderr, "usage: %s BUNDLE GRAPH SIZE DIM ROUNDS CALLS\n", arguments[0]);
        return 2;
    }
    const int size = std::atoi(arguments[3]);
    const int calls = std::atoi(arguments[6]);
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(size * size * 3));
    for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 37 % 251);
    std::vector<float> plain(static_cast<std::size_t>(std::atoi(arguments[4])));
    std::vector<float> ours(plain.size());
    PlainSession session(arguments[2], pixels, size, plain);
    clipedge_options options = CLIPEDGE_OPTIONS;
    options.threads = 1;
    const clipedge::Model model(arguments[1], options);
    const clipedge_image image = clipedge::image(pixels.data(), size, size);
    const auto run_ours = [&] {
        clipedge::check(clipedge_encode_images(model.get(), &image, 1, ours.data(), ours.size()));
    };
    for (int round = 0; round < std::atoi(arguments[5]); ++round) {
        // In turn, so that a noisy neighbour slows both; each goes first every other time.
        std::vector<double> of_session;
        std::vector<double> of_ours;
        for (int call = 0; call < calls; ++call) {
            if (call % 2 == 0) of_session.push_back(microseconds([&] { session.run(); }));
            of_ours.push_back(microseconds(run_ours));
            if (call % 2 == 1) of_session.push_back(microseconds([&] { session.run(); }));
        }
        std::printf("%.3f %.3f\n", first_decile(of_session), first_decile(of_ours));
    }
    return plain == ours ? 0 : 1;
}
