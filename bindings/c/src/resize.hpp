// Pillow's antialiased resize: two passes with 8 bits a channel between them (src/libImaging/Resample.c), each for the
// outputs that are wanted only. The bytes of a result do not depend on which others are computed with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "axis.hpp"
#include "kernels.hpp"

namespace clipedge {

// The samples [first, end) that an axis reads.
struct Span {
    std::int32_t first;
    std::int32_t end;
};

Span samples_read(const Axis& axis);

// Rows of RGB in one memory. The stride is a multiple of `block`, so that whole blocks can be read, and there are
// rows to spare up to a multiple of `lanes`.
struct Rows {
    std::vector<std::uint8_t> bytes;
    std::size_t stride = 0;

    void reserve(std::size_t rows, std::size_t pixels);
    std::uint8_t* at(std::size_t row) { return bytes.data() + row * stride; }
};

// Memory of the pass along the rows.
struct Strip {
    std::vector<std::uint8_t> in;
    std::vector<std::uint8_t> out;
};

// The pass along the rows, for `lanes` rows of RGB that begin at the axis's sample `read.first`.
void resize_rows(const Kernels& kernels, const std::uint8_t* const* rows, const Axis& axis, Span read, Strip& strip,
                 std::uint8_t* const* out);

// The pass along the columns: all outputs of the axis, from rows that begin with the axis's sample `first`, to the
// bytes from `offset` on of the rows of `out`.
void resize_columns(const Kernels& kernels, Rows& in, std::int32_t first, const Axis& axis, Rows& out,
                    std::size_t offset);

}  // namespace clipedge
