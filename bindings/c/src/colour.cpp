#include "colour.hpp"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace clipedge {
namespace {

Slope slope_of(double slope) {
    const std::int64_t fixed = std::llrint(slope * static_cast<double>(std::int64_t{1} << (2 * colour_bits)));
    const std::int64_t whole = fixed >> colour_bits;  // rounded down
    return {static_cast<std::int32_t>(whole), static_cast<std::int32_t>(fixed - whole * (1 << colour_bits))};
}

YuvSlopes make_slopes(double kr, double kb, Range range) {
    const double kg = 1 - kr - kb;
    const double luma = range == Range::limited ? 255.0 / 219 : 1.0;
    const double chroma = range == Range::limited ? 255.0 / 224 : 1.0;
    return {slope_of(luma),
            slope_of(2 * (1 - kr) * chroma),
            slope_of(-2 * kb * (1 - kb) / kg * chroma),
            slope_of(-2 * kr * (1 - kr) / kg * chroma),
            slope_of(2 * (1 - kb) * chroma),
            range == Range::limited ? 16 : 0};
}

const YuvSlopes& slopes_of(Matrix matrix, Range range) {
    static const YuvSlopes slopes[] = {
        make_slopes(0.299, 0.114, Range::limited),
        make_slopes(0.299, 0.114, Range::full),
        make_slopes(0.2126, 0.0722, Range::limited),
        make_slopes(0.2126, 0.0722, Range::full),
    };
    return slopes[(matrix == Matrix::bt709 ? 2 : 0) + (range == Range::full ? 1 : 0)];
}

bool halves_rows(Format format) { return format == Format::nv12 || format == Format::i420; }

YuvRow yuv_row(const Image& image, std::int32_t row, std::size_t left) {
    const auto at = [&](int plane, std::int32_t line) {
        return image.planes[plane] + image.strides[plane] * static_cast<std::size_t>(line);
    };
    switch (image.format) {
        case Format::nv12:
            return {at(0, row) + left, at(1, row / 2) + left, at(1, row / 2) + left + 1, 1, 2};
        case Format::i420:
            return {at(0, row) + left, at(1, row / 2) + left / 2, at(2, row / 2) + left / 2, 1, 1};
        case Format::yuyv:
            return {at(0, row) + 2 * left, at(0, row) + 2 * left + 1, at(0, row) + 2 * left + 3, 2, 4};
        default:
            return {at(0, row) + 2 * left + 1, at(0, row) + 2 * left, at(0, row) + 2 * left + 2, 2, 4};
    }
}

void convert_yuv(const Columns& columns, std::int32_t row_number, std::uint8_t* rgb) {
    const YuvRow row = yuv_row(columns.image, row_number, columns.left);
    const YuvSlopes& slopes = slopes_of(columns.image.matrix, columns.image.range);
    const std::size_t count = columns.right - columns.left;
    const std::int32_t chroma_row = halves_rows(columns.image.format) ? row_number / 2 : row_number;
    ColourRows& add = columns.colours;
    if (chroma_row != add.chroma_row) {
        columns.kernels.chroma(row, slopes, (count + 1) / 2, add.red.data(), add.green.data(), add.blue.data());
        add.chroma_row = chroma_row;
    }
    columns.kernels.yuv_to_rgb(row, slopes, add.red.data(), add.green.data(), add.blue.data(), count, rgb);
}

void repeat_gray(const std::uint8_t* in, std::size_t count, std::uint8_t* rgb) {
    for (std::size_t x = 0; x < count; ++x) std::memset(rgb + 3 * x, in[x], 3);
}

}  // namespace

Layout layout_of(Format format, std::int32_t width, std::int32_t height) {
    const std::size_t w = static_cast<std::size_t>(width), h = static_cast<std::size_t>(height);
    const std::size_t w2 = (w + 1) / 2, h2 = (h + 1) / 2;
    switch (format) {
        case Format::rgb8:
        case Format::bgr8:
            return {1, {{h, 3 * w}}};
        case Format::rgba8:
        case Format::bgra8:
            return {1, {{h, 4 * w}}};
        case Format::gray8:
            return {1, {{h, w}}};
        case Format::yuyv:
        case Format::uyvy:
            return {1, {{h, 4 * w2}}};
        case Format::nv12:
            return {2, {{h, w}, {h2, 2 * w2}}};
        case Format::i420:
            return {3, {{h, w}, {h2, w2}, {h2, w2}}};
    }
    throw std::invalid_argument("an image's format is one of 1 (rgb8) to 9 (uyvy); found " +
                                std::to_string(static_cast<std::int32_t>(format)));
}

void prepare(const Columns& columns) {
    const std::size_t even = (columns.right - columns.left + 1) / 2 * 2;
    for (auto* row : {&columns.colours.red, &columns.colours.green, &columns.colours.blue}) row->resize(even);
    columns.colours.chroma_row = -1;
}

const std::uint8_t* rgb_row(const Columns& columns, std::int32_t row, std::uint8_t* into) {
    const Image& image = columns.image;
    const std::uint8_t* packed = image.planes[0] + image.strides[0] * static_cast<std::size_t>(row);
    const std::size_t left = columns.left, count = columns.right - left;
    switch (image.format) {
        case Format::rgb8:
            return packed + 3 * left;
        case Format::bgr8:
            columns.kernels.bgr_to_rgb(packed + 3 * left, count, into);
            break;
        case Format::rgba8:
            columns.kernels.rgba_to_rgb(packed + 4 * left, count, into);
            break;
        case Format::bgra8:
            columns.kernels.bgra_to_rgb(packed + 4 * left, count, into);
            break;
        case Format::gray8:
            repeat_gray(packed + left, count, into);
            break;
        default:
            convert_yuv(columns, row, into);
    }
    return into;
}

}  // namespace clipedge
