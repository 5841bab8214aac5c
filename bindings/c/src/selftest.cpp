#include "selftest.hpp"

#include <cmath>
#include <vector>

#include "errors.hpp"
#include "files.hpp"
#include "safetensors.hpp"

namespace clipedge {

namespace {

// As clipedge/selftest.py: another engine, version or instruction set rounds INT8 a little differently.
constexpr double allowed_drift = 0.05;

std::vector<double> mean_row(const std::vector<float>& rows, std::size_t dim) {
    std::vector<double> mean(dim);
    for (std::size_t i = 0; i < rows.size(); ++i) mean[i % dim] += rows[i];
    for (double& one : mean) one /= static_cast<double>(rows.size() / dim);
    return mean;
}

// Cosine after `mean` was subtracted from both: embeddings of unrelated pictures have a large common part.
double centred_cosine(const std::vector<float>& first, const std::vector<float>& second,
                      const std::vector<double>& mean) {
    double product = 0;
    double first_square = 0;
    double second_square = 0;
    for (std::size_t i = 0; i < mean.size(); ++i) {
        const double a = first[i] - mean[i];
        const double b = second[i] - mean[i];
        product += a * b, first_square += a * a, second_square += b * b;
    }
    return product / std::sqrt(first_square * second_square);
}

}  // namespace

void self_test(const Session& session, const std::string& path, const Variant& variant, std::size_t dim) {
    if (!variant.golden_cosine) {
        fail(CLIPEDGE_BUNDLE, "the ", variant.tower, " tower was exported without a proof: export the bundle again");
    }
    const MappedFile mapped(path);
    const Safetensors file = parse_safetensors(mapped.bytes(), path);
    const bool is_image = variant.tower == "image";
    const Tensor& embeds = file.tensor(is_image ? "image_embeds" : "text_embeds", "F32", 2);
    const Tensor& inputs = file.tensor(is_image ? "pixels" : "input_ids", is_image ? "U8" : "I64", is_image ? 4 : 2);
    const std::int64_t rows = embeds.shape[0];
    if (rows < 1 || inputs.shape[0] != rows || embeds.shape[1] != static_cast<std::int64_t>(dim) ||
        inputs.bytes.size() != static_cast<std::size_t>(rows) * session.input_bytes()) {
        fail(CLIPEDGE_BUNDLE, path, " should hold as many inputs as embeddings for the ", variant.tower,
             " tower, of its sizes: export the bundle again");
    }
    std::vector<float> expected = floats_of(embeds);
    const std::vector<double> mean = mean_row(expected, dim);
    expected.resize(dim);
    // Copied, since the numbers of an engine's input have to be aligned.
    std::vector<std::int64_t> input(session.input_bytes() / sizeof(std::int64_t) + 1);
    inputs.bytes.copy(reinterpret_cast<char*>(input.data()), session.input_bytes());
    std::vector<float> found(dim);
    session.run(input.data(), 1, found.data(), dim);
    const double cosine = centred_cosine(expected, found, mean);
    if (!(cosine >= *variant.golden_cosine - allowed_drift)) {  // `!(>=)`, so that NaN fails
        fail(CLIPEDGE_BACKEND, "ONNX Runtime ", runtime_version(), " gives wrong numbers with the ", variant.tower,
             " tower (", variant.name(),
             "): on the bundle's golden input the centred cosine with the source model was ", *variant.golden_cosine,
             " at export and is ", cosine,
             " here; use another variant or ONNX Runtime, or export for this device");
    }
}

}  // namespace clipedge
