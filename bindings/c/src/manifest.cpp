#include "manifest.hpp"

#include <algorithm>

#include "errors.hpp"
#include "fields.hpp"

namespace clipedge {

namespace {

constexpr std::int64_t schema_version = 1;
constexpr std::int64_t most = 8192;  // pixels a side, numbers in an embedding, tokens

// Lists in a manifest hold something.
std::vector<Field> some(const Field& field) {
    std::vector<Field> items = field.items();
    if (items.empty()) field.unexpected("a list that is not empty");
    return items;
}

bool leaves_folder(const std::string& path) {
    if (path.empty() || path.front() == '/') return true;
    for (std::size_t start = 0; start <= path.size();) {
        const std::size_t end = std::min(path.find('/', start), path.size());
        if (path.compare(start, end - start, "..") == 0) return true;
        start = end + 1;
    }
    return false;
}

FileEntry file_entry(const Field& field) {
    field.check_names({"path", "sha256"});
    FileEntry entry{field["path"].text(), field["sha256"].text()};
    const auto unusable = [](unsigned char byte) { return byte < 0x20 || byte == 0x7F || byte == '\\' || byte == ':'; };
    if (leaves_folder(entry.path) || std::any_of(entry.path.begin(), entry.path.end(), unusable)) {
        field["path"].unexpected("a path inside the bundle's folder");
    }
    return entry;
}

TensorSpec tensor_spec(const Field& field) {
    field.check_names({"name", "dtype", "shape"});
    TensorSpec spec{field["name"].text(), field["dtype"].text(), {}};
    for (const Field& dimension : some(field["shape"])) {
        const bool is_named = dimension.json->get<std::string>() != nullptr;
        spec.shape.push_back(is_named ? -1 : dimension.integer(1, std::int64_t{1} << 31));
    }
    return spec;
}

double golden_cosine(const Field& field) {
    field.check_names(
        {"engine", "samples", "median_cosine", "median_centred_cosine", "p1_centred_cosine", "golden_cosine"});
    field["engine"].text();
    field["samples"].integer();
    for (const char* name : {"median_cosine", "median_centred_cosine", "p1_centred_cosine"}) field[name].number();
    return field["golden_cosine"].number();
}

Variant variant(const Field& field) {
    field.check_names({"tower", "precision", "target", "files", "opset", "inputs", "outputs"}, {"proof"});
    Variant result;
    result.tower = field["tower"].choice({"image", "text", "dense"});
    result.precision = field["precision"].choice({"fp32", "fp16", "int8", "fp8"});
    result.target = field["target"].choice({"x86", "arm", "tensorrt", "any"});
    for (const Field& file : some(field["files"])) result.files.push_back(file_entry(file));
    field["opset"].integer();
    for (const Field& input : some(field["inputs"])) result.inputs.push_back(tensor_spec(input));
    for (const Field& output : some(field["outputs"])) result.outputs.push_back(tensor_spec(output));
    if (field.has("proof") && !field["proof"].is_null()) result.golden_cosine = golden_cosine(field["proof"]);
    return result;
}

PreprocessingEntry preprocessing(const Field& field) {
    field.check_names({"height", "width", "resize", "shortest_edge", "interpolation", "mean", "std"},
                      {"baked", "crop_offset"});
    for (const char* name : {"mean", "std"}) {
        const std::vector<Field> channels = field[name].items();
        if (channels.size() != 3) field[name].unexpected("a list of 3");
        for (const Field& channel : channels) channel.number();
    }
    return {field["height"].integer(1, most),
            field["width"].integer(1, most),
            field["resize"].choice({"shortest-edge", "squash"}),
            field["shortest_edge"].integer(1, most),
            field["interpolation"].choice({"nearest", "bilinear", "bicubic", "lanczos"}),
            field.has("baked") ? field["baked"].boolean() : true,
            field.has("crop_offset") ? field["crop_offset"].choice({"down", "half-even"}) : "down"};
}

// Returns the source model's name.
std::string provenance(const Field& field) {
    field.check_names({"source_model", "source_license", "source_sha256", "calibration_sha256", "created", "tools"});
    for (const char* name : {"source_license", "calibration_sha256"}) {
        if (!field[name].is_null()) field[name].text();
    }
    field["source_sha256"].text();
    field["created"].text();
    const auto* tools = field["tools"].json->get<JsonObject>();
    if (!tools) field["tools"].unexpected("an object");
    for (const JsonMember& tool : *tools) field["tools"][tool.name].text();
    return field["source_model"].text();
}

}  // namespace

Manifest parse_manifest(std::string_view text) {
    const Json document = parse_json(text, "clipedge.json");
    const Field root{&document, "clipedge.json:"};
    const std::int64_t* version = nullptr;
    if (const Json* found = document.member("schema_version")) version = found->get<std::int64_t>();
    if (!version || *version != schema_version) {
        fail(CLIPEDGE_BUNDLE, "the bundle has schema version ", version ? std::to_string(*version) : "none",
             ", this clipedge reads version ", schema_version,
             "; export it again with this clipedge, or install the clipedge that wrote it");
    }
    root.check_names({"schema_version", "space_id", "variants", "embedding_dim", "logit_scale", "logit_bias",
                      "activation", "preprocessing", "context_length", "files", "provenance"});
    Manifest manifest{};
    manifest.space_id = root["space_id"].text();
    for (const Field& one : some(root["variants"])) manifest.variants.push_back(variant(one));
    manifest.embedding_dim = root["embedding_dim"].integer(1, most);
    manifest.logit_scale = root["logit_scale"].number();
    manifest.logit_bias = root["logit_bias"].number();
    manifest.activation = root["activation"].choice({"softmax", "sigmoid"});
    manifest.preprocessing = preprocessing(root["preprocessing"]);
    if (!root["context_length"].is_null()) manifest.context_length = root["context_length"].integer(1, most);
    for (const Field& file : some(root["files"])) manifest.files.push_back(file_entry(file));
    manifest.source_model = provenance(root["provenance"]);
    return manifest;
}

}  // namespace clipedge
