// What every fuzz target does: parse, and take an Error for an answer. Anything else that happens is a finding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "errors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

template <typename Parse>
int refused_or_parsed(const std::uint8_t* data, std::size_t size, const Parse& parse) {
    try {
        parse(std::string_view(reinterpret_cast<const char*>(data), size));
    } catch (const clipedge::Error&) {
    }
    return 0;
}
