// The safetensors format (https://github.com/huggingface/safetensors): eight bytes with the header's length, a JSON
// header, and the tensors' bytes without a gap.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace clipedge {

// `bytes` lie in the file that was parsed, at any alignment.
struct Tensor {
    std::string dtype;  // "F32", "U8", "I64"
    std::vector<std::int64_t> shape;
    std::string_view bytes;
};

struct Safetensors {
    std::map<std::string, Tensor> tensors;
    std::map<std::string, std::string> metadata;
    std::string name;

    // Raises Error (CLIPEDGE_BUNDLE) where it is not there, or has another dtype or number of dimensions.
    const Tensor& tensor(const std::string& key, const std::string& dtype, std::size_t dimensions) const;
};

// `bytes` are the whole file, and have to outlive the result; `name` is what messages call it. Every offset is checked:
// the tensors have to cover the bytes behind the header exactly. Raises Error (CLIPEDGE_BUNDLE).
Safetensors parse_safetensors(std::string_view bytes, const std::string& name);

// A copy of a tensor's numbers.
std::vector<float> floats_of(const Tensor& tensor);

}  // namespace clipedge
