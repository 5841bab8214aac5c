#include "resize.hpp"

namespace clipedge {
namespace {

std::size_t round_up(std::size_t value, std::size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

Span samples_read(const Axis& axis) { return {axis.first.front(), axis.first.back() + axis.taps.back()}; }

void Rows::reserve(std::size_t rows, std::size_t pixels) {
    stride = round_up(3 * pixels, block);
    bytes.resize(round_up(rows, lanes) * stride);
}

void resize_rows(const Kernels& kernels, const std::uint8_t* const* rows, const Axis& axis, Span read, Strip& strip,
                 std::uint8_t* const* out) {
    const std::size_t pixels = static_cast<std::size_t>(read.end - read.first), outputs = axis.first.size();
    strip.in.resize(pixels * block);
    strip.out.resize(round_up(3 * outputs, lanes) * lanes);
    kernels.interleave(rows, 3 * pixels, strip.in.data());
    kernels.along_rows(strip.in.data(), axis, read.first, strip.out.data());
    kernels.deinterleave(strip.out.data(), 3 * outputs, out);
}

void resize_columns(const Kernels& kernels, Rows& in, std::int32_t first, const Axis& axis, Rows& out,
                    std::size_t offset) {
    for (std::size_t i = 0; i < axis.first.size(); ++i) {
        const std::uint8_t* from = in.at(static_cast<std::size_t>(axis.first[i] - first));
        const std::int32_t* weights = axis.weights.data() + i * axis.reach;
        kernels.along_columns(from, in.stride, weights, axis.taps[i], in.stride / block, out.at(i) + offset);
    }
}

}  // namespace clipedge
