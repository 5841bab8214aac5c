// Streams whose answers come from the caller, for the tests: those of the library ask a model.
#include <string>
#include <vector>

#include "boundary.hpp"
#include "errors.hpp"
#include "handles.hpp"

extern "C" {

// Writes the probabilities of a frame, whose first plane is given; a first one below 0 stands for an engine that fails.
using Answerer = void (*)(const std::uint8_t* plane, double* probabilities);

// With the labels "0", "1" and so on. Freed by clipedge_bank_free.
CLIPEDGE_API clipedge_bank* clipedge_test_bank(std::size_t labels) {
    auto* bank = new clipedge_bank;
    for (std::size_t i = 0; i < labels; ++i) bank->bank.labels.push_back(std::to_string(i));
    return bank;
}

CLIPEDGE_API clipedge_status clipedge_test_stream(const clipedge_bank* bank, const clipedge_stream_options* options,
                                                  Answerer answerer, clipedge_stream** stream) {
    return clipedge::guarded([&] {
        const auto answer = [bank, answerer](const clipedge::Image& image) {
            std::vector<double> probabilities(bank->bank.labels.size());
            answerer(image.planes[0], probabilities.data());
            if (probabilities[0] < 0) clipedge::fail(CLIPEDGE_BACKEND, "the engine broke");
            return probabilities;
        };
        *stream = clipedge::new_stream(answer, *bank, options);
    });
}
}
