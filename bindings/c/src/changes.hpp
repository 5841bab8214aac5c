// Whether a frame shows anything new: a glance at a few thousand of its bytes (clipedge/camera/changes.py).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "pixels.hpp"

namespace clipedge {

constexpr double changed = 8;  // in byte values, of 255: what differs by more is another picture

// For every channel as the camera delivers it, the sums of 4 x 4 samples in each of 16 x 16 cells.
struct Glance {
    Format format;
    std::int32_t width;
    std::int32_t height;
    std::vector<std::array<std::uint16_t, 256>> channels;
};

// Of an image that check() lets pass.
Glance glance(const Image& image);

// The largest difference of two cells' means in any channel, in byte values; infinite for another format or size.
double difference(const Glance& first, const Glance& second);

}  // namespace clipedge
