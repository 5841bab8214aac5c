// Rows of a picture in any format as RGB; the formulas are those at the top of clipedge/images/frames.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.hpp"
#include "pixels.hpp"

namespace clipedge {

struct Plane {
    std::size_t rows;
    std::size_t row_bytes;  // that a row needs
};

// The planes that a format has, of which the first `plane_count` count.
struct Layout {
    std::size_t plane_count;
    Plane planes[3];
};

// Throws std::invalid_argument for a format that there is not.
Layout layout_of(Format format, std::int32_t width, std::int32_t height);

// What the chroma of a row adds to the channels of each pixel; kept from frame to frame for its memory.
struct ColourRows {
    std::vector<std::int32_t> red, green, blue;
    std::int32_t chroma_row;  // that red, green and blue hold, -1 for none
};

// The columns [left, right) of an image; left is even, so that it begins with a chroma sample of its own.
struct Columns {
    const Image& image;
    std::size_t left;
    std::size_t right;
    const Kernels& kernels;
    ColourRows& colours;
};

// Call it before the first row.
void prepare(const Columns& columns);

// The row's 3 (right - left) bytes of RGB: in the image itself if that is rgb8, otherwise written to `into`.
const std::uint8_t* rgb_row(const Columns& columns, std::int32_t row, std::uint8_t* into);

}  // namespace clipedge
