// The loops that take the time, each compiled twice: for any processor, and for x86 with AVX2.
//
// They are plain loops over bytes that lie side by side, which compilers vectorise (at -O3) for NEON as well. Integers
// only, so that every build and every processor gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "axis.hpp"

namespace clipedge {

constexpr std::size_t lanes = 16;         // rows that are resized side by side
constexpr std::size_t block = 3 * lanes;  // bytes of one column of RGB in these rows, summed at the same time
constexpr int colour_bits = 20;           // of the fraction, in the tables of colour.cpp

struct Kernels {
    // out[16 i + lane] = rows[lane][i] for `count` bytes of each row.
    void (*interleave)(const std::uint8_t* const* rows, std::size_t count, std::uint8_t* out);

    // rows[lane][i] = in[16 i + lane], for `count` rounded up to a multiple of 16.
    void (*deinterleave)(const std::uint8_t* in, std::size_t count, std::uint8_t* const* rows);

    // Every output of the axis, a block each; `in` begins at the axis's sample `origin`.
    void (*along_rows)(const std::uint8_t* in, const Axis& axis, std::int32_t origin, std::uint8_t* out);

    // One output of an axis, for `blocks` blocks of bytes in rows that are `stride` bytes apart.
    void (*along_columns)(const std::uint8_t* in, std::size_t stride, const std::int32_t* weights, std::int32_t taps,
                          std::size_t blocks, std::uint8_t* out);

    // rgb[3 x + channel] = luma[x] + that channel's chroma[x], from fixed point, clipped.
    void (*yuv_to_rgb)(const std::int32_t* luma, const std::int32_t* red, const std::int32_t* green,
                       const std::int32_t* blue, std::size_t count, std::uint8_t* rgb);

    // Pixels of three or four bytes to RGB.
    void (*bgr_to_rgb)(const std::uint8_t* in, std::size_t count, std::uint8_t* rgb);
    void (*rgba_to_rgb)(const std::uint8_t* in, std::size_t count, std::uint8_t* rgb);
    void (*bgra_to_rgb)(const std::uint8_t* in, std::size_t count, std::uint8_t* rgb);
};

const Kernels& portable_kernels();
const Kernels* avx2_kernels();  // nullptr where the processor has no AVX2
const Kernels& fastest_kernels();

}  // namespace clipedge
