// Where each sample of a resized row or column comes from, by Pillow's rules.
#pragma once

#include <cstdint>
#include <vector>

#include "pixels.hpp"

namespace clipedge {

constexpr int weight_bits = 22;  // of the fraction; sums of weighted bytes stay below 2**31

// The filter's weights for the outputs [begin, end) of an axis that is resized from `source` to `resized` samples.
// Output i is the sum of `taps[i]` samples from `first[i]` on, weighted by `weights[i * reach]` and those that follow.
struct Axis {
    std::int32_t source = 0;
    std::int32_t resized = 0;
    std::int32_t begin = 0;
    std::int32_t end = 0;
    Interpolation interpolation = Interpolation::nearest;
    std::size_t reach = 0;
    std::vector<std::int32_t> first;
    std::vector<std::int32_t> taps;
    std::vector<std::int32_t> weights;
};

// Makes the axis that of the arguments, unless it is so already. Not for Interpolation::nearest, which weighs nothing.
void update(Axis& axis, std::int32_t source, std::int32_t resized, std::int32_t begin, std::int32_t end,
            Interpolation interpolation);

// The samples that Pillow's nearest neighbour takes for the outputs [begin, end), -1 where it finds none.
std::vector<std::int32_t> nearest_samples(std::int32_t source, std::int32_t resized, std::int32_t begin,
                                          std::int32_t end);

}  // namespace clipedge
