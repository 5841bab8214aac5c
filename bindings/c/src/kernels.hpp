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
constexpr int colour_bits = 20;           // of the fraction of a colour

// `slope` times a small integer x, in fixed point, rounded to the nearest: whole x + (part x + 2**19 >> 20), which fits
// into 32 bits. For the slopes of colour.cpp and all bytes that is the number that frames.py looks up in its tables.
struct Slope {
    std::int32_t whole;
    std::int32_t part;
};

// What luma (from `zero` on) and chroma (from 128 on) add to the channels.
struct YuvSlopes {
    Slope luma, cr_to_red, cb_to_green, cr_to_green, cb_to_blue;
    std::int32_t zero;
};

// Where the samples of one row lie: the first ones, and the bytes from each to the next (1, 2 or 4).
struct YuvRow {
    const std::uint8_t *luma, *cb, *cr;
    std::size_t luma_step, chroma_step;
};

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

    // What the chroma samples of a row add to the channels; each stands for two pixels.
    void (*chroma)(const YuvRow& row, const YuvSlopes& slopes, std::size_t samples, std::int32_t* red,
                   std::int32_t* green, std::int32_t* blue);

    // Luma and that together, rounded and clipped.
    void (*yuv_to_rgb)(const YuvRow& row, const YuvSlopes& slopes, const std::int32_t* red, const std::int32_t* green,
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
