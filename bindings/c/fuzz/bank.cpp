#include "bank.hpp"

#include "target.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return refused_or_parsed(data, size, [](std::string_view bytes) { clipedge::parse_bank(bytes, "fuzz"); });
}
