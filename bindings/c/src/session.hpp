// A tower in an ONNX Runtime session, with the settings of clipedge/backends/onnxruntime.py.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "manifest.hpp"

namespace clipedge {

enum class Provider : std::int32_t { cpu = 0, cuda = 1, tensorrt = 2 };

struct EngineOptions {
    Provider provider = Provider::cpu;
    int device = 0;
    int threads = 0;  // 0: one for each core
    bool spinning = true;
    std::string engine_cache;
};

// Returns the options. Raises Error: CLIPEDGE_USAGE for such as contradict each other or cannot be,
// CLIPEDGE_UNSUPPORTED for such as this build or its ONNX Runtime cannot do.
const EngineOptions& checked_options(const EngineOptions& options);

// "1.32.0"
std::string runtime_version();

// Safe to be called from several threads at once.
class Session {
public:
    // Raises Error (CLIPEDGE_BACKEND) where ONNX Runtime refuses the graph.
    Session(const std::string& path, const Variant& variant, const EngineOptions& options);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // `count` inputs of the variant's dtype and shape, one after the other -> (count, dim) embeddings. Raises Error
    // (CLIPEDGE_BACKEND) where the graph's output has another shape.
    void run(const void* inputs, std::size_t count, float* embeddings, std::size_t dim) const;

    // Bytes of one input.
    std::size_t input_bytes() const;

private:
    struct Handles;
    std::unique_ptr<const Handles> handles_;
    Variant variant_;
};

}  // namespace clipedge
