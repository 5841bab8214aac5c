#include "colour.hpp"

#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace clipedge {
namespace {

using Table = std::array<std::int32_t, 256>;

// What each byte value adds to a channel, in units of 2**-20; `luma` includes the half for rounding.
struct YuvTables {
    Table luma, cr_to_red, cb_to_green, cr_to_green, cb_to_blue;
};

YuvTables make_tables(double kr, double kb, Range range) {
    const double kg = 1 - kr - kb;
    const auto fixed = [](double value) { return static_cast<std::int32_t>(std::rint(value * (1 << colour_bits))); };
    YuvTables tables;
    for (std::size_t byte = 0; byte < 256; ++byte) {
        double luma = static_cast<double>(byte), chroma = luma - 128;
        if (range == Range::limited) {
            luma = (luma - 16) * (255.0 / 219);
            chroma = chroma * (255.0 / 224);
        }
        // The order of operations is that of frames.py.
        tables.luma[byte] = fixed(luma + 0.5);
        tables.cr_to_red[byte] = fixed(2 * (1 - kr) * chroma);
        tables.cb_to_green[byte] = fixed(-2 * kb * (1 - kb) / kg * chroma);
        tables.cr_to_green[byte] = fixed(-2 * kr * (1 - kr) / kg * chroma);
        tables.cb_to_blue[byte] = fixed(2 * (1 - kb) * chroma);
    }
    return tables;
}

const YuvTables& tables_of(Matrix matrix, Range range) {
    static const YuvTables tables[] = {
        make_tables(0.299, 0.114, Range::limited),
        make_tables(0.299, 0.114, Range::full),
        make_tables(0.2126, 0.0722, Range::limited),
        make_tables(0.2126, 0.0722, Range::full),
    };
    return tables[(matrix == Matrix::bt709 ? 2 : 0) + (range == Range::full ? 1 : 0)];
}

// Where the samples of one row lie: the first ones, and the bytes from each to the next.
struct YuvRow {
    const std::uint8_t *luma, *cb, *cr;
    std::size_t luma_step, chroma_step;
    std::int32_t chroma_row;
};

YuvRow yuv_row(const Image& image, std::int32_t row, std::size_t left) {
    const auto at = [&](int plane, std::int32_t line) {
        return image.planes[plane] + image.strides[plane] * static_cast<std::size_t>(line);
    };
    const std::int32_t half = row / 2;
    switch (image.format) {
        case Format::nv12:
            return {at(0, row) + left, at(1, half) + left, at(1, half) + left + 1, 1, 2, half};
        case Format::i420:
            return {at(0, row) + left, at(1, half) + left / 2, at(2, half) + left / 2, 1, 1, half};
        case Format::yuyv:
            return {at(0, row) + 2 * left, at(0, row) + 2 * left + 1, at(0, row) + 2 * left + 3, 2, 4, row};
        default:
            return {at(0, row) + 2 * left + 1, at(0, row) + 2 * left, at(0, row) + 2 * left + 2, 2, 4, row};
    }
}

// Each chroma sample stands for two pixels.
void look_up_chroma(const YuvRow& row, std::size_t samples, const YuvTables& tables, ColourRows& colours) {
    for (std::size_t i = 0; i < samples; ++i) {
        const std::uint8_t cb = row.cb[i * row.chroma_step], cr = row.cr[i * row.chroma_step];
        colours.red[2 * i] = colours.red[2 * i + 1] = tables.cr_to_red[cr];
        colours.green[2 * i] = colours.green[2 * i + 1] = tables.cb_to_green[cb] + tables.cr_to_green[cr];
        colours.blue[2 * i] = colours.blue[2 * i + 1] = tables.cb_to_blue[cb];
    }
    colours.chroma_row = row.chroma_row;
}

void convert_yuv(const Columns& columns, std::int32_t row_number, std::uint8_t* rgb) {
    const YuvRow row = yuv_row(columns.image, row_number, columns.left);
    const YuvTables& tables = tables_of(columns.image.matrix, columns.image.range);
    const std::size_t count = columns.right - columns.left;
    ColourRows& colours = columns.colours;
    if (row.chroma_row != colours.chroma_row) look_up_chroma(row, (count + 1) / 2, tables, colours);
    for (std::size_t x = 0; x < count; ++x) colours.luma[x] = tables.luma[row.luma[x * row.luma_step]];
    columns.kernels.yuv_to_rgb(colours.luma.data(), colours.red.data(), colours.green.data(), colours.blue.data(),
                               count, rgb);
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
    for (auto* row : {&columns.colours.luma, &columns.colours.red, &columns.colours.green, &columns.colours.blue}) {
        row->resize(even);
    }
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
