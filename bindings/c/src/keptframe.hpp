// A frame in memory of its own, which the next frame takes over.
#pragma once

#include <cstdint>
#include <vector>

#include "pixels.hpp"

namespace clipedge {

struct KeptFrame {
    std::vector<std::uint8_t> memory;
    Image image{};
};

// Copies an image that check() lets pass, without what lies between its rows.
void keep(const Image& image, KeptFrame& kept);

}  // namespace clipedge
