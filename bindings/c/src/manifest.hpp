// What a bundle says about itself: clipedge.json, read as strictly as clipedge/manifest.py reads it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace clipedge {

// A file of the bundle: POSIX path inside it, and the SHA-256 of its bytes in hex.
struct FileEntry {
    std::string path;
    std::string sha256;
};

// An input or output of a graph; a dimension that varies is -1.
struct TensorSpec {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> shape;
};

// One tower in one precision for one kind of device. `golden_cosine` is what the self-test has to find again; without a
// proof it is missing.
struct Variant {
    std::string tower;
    std::string precision;
    std::string target;
    std::vector<FileEntry> files;
    std::vector<TensorSpec> inputs;
    std::vector<TensorSpec> outputs;
    std::optional<double> golden_cosine;

    // "int8.x86", "fp32"
    std::string name() const { return target == "any" ? precision : precision + "." + target; }
};

// From a picture to the pixels that the image tower takes (clipedge.manifest.Preprocessing).
struct PreprocessingEntry {
    std::int64_t height;
    std::int64_t width;
    std::string resize;
    std::int64_t shortest_edge;
    std::string interpolation;
    bool baked;
    std::string crop_offset;
};

struct Manifest {
    std::string space_id;
    std::vector<Variant> variants;
    std::int64_t embedding_dim;
    double logit_scale;
    double logit_bias;
    std::string activation;
    PreprocessingEntry preprocessing;
    std::optional<std::int64_t> context_length;
    std::vector<FileEntry> files;
    std::string source_model;
};

// Raises Error (CLIPEDGE_BUNDLE) for anything that is no manifest of schema version 1.
Manifest parse_manifest(std::string_view text);

}  // namespace clipedge
