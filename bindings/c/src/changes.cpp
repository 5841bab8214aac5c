#include "changes.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace clipedge {

namespace {

constexpr std::size_t cells = 16, samples = 4, side = cells * samples;

// The bytes of one channel: `step` from one column to the next, `stride` from one row to the next.
struct Channel {
    const std::uint8_t* first;
    std::size_t stride, step, rows, columns;
};

std::vector<Channel> channels_of(const Image& image) {
    const auto w = static_cast<std::size_t>(image.width), h = static_cast<std::size_t>(image.height);
    const std::size_t w2 = (w + 1) / 2, h2 = (h + 1) / 2, stride = image.strides[0];
    const std::uint8_t* const first = image.planes[0];
    const auto packed = [&](std::size_t step) -> std::vector<Channel> {
        return {{first, stride, step, h, w}, {first + 1, stride, step, h, w}, {first + 2, stride, step, h, w}};
    };
    switch (image.format) {
        case Format::rgb8:
        case Format::bgr8:
            return packed(3);
        case Format::rgba8:
        case Format::bgra8:
            return packed(4);
        case Format::gray8:
            return {{first, stride, 1, h, w}};
        case Format::nv12:
            return {{first, stride, 1, h, w},
                    {image.planes[1], image.strides[1], 2, h2, w2},
                    {image.planes[1] + 1, image.strides[1], 2, h2, w2}};
        case Format::i420:
            return {{first, stride, 1, h, w},
                    {image.planes[1], image.strides[1], 1, h2, w2},
                    {image.planes[2], image.strides[2], 1, h2, w2}};
        case Format::yuyv:
            return {{first, stride, 2, h, w}, {first + 1, stride, 4, h, w2}, {first + 3, stride, 4, h, w2}};
        case Format::uyvy:
            return {{first + 1, stride, 2, h, w}, {first, stride, 4, h, w2}, {first + 2, stride, 4, h, w2}};
    }
    return {};
}

// Where the samples lie on a side of so many pixels; the same pixel several times where there are fewer than samples.
std::array<std::size_t, side> places(std::size_t length) {
    std::array<std::size_t, side> found;
    for (std::size_t i = 0; i < side; ++i) found[i] = (2 * i + 1) * length / (2 * side);
    return found;
}

std::array<std::uint16_t, cells * cells> sums_of(const Channel& channel) {
    std::array<std::uint16_t, cells * cells> sums{};
    const std::array<std::size_t, side> rows = places(channel.rows), columns = places(channel.columns);
    for (std::size_t y = 0; y < side; ++y) {
        const std::uint8_t* const row = channel.first + rows[y] * channel.stride;
        for (std::size_t x = 0; x < side; ++x) {
            std::uint16_t& sum = sums[y / samples * cells + x / samples];
            sum = static_cast<std::uint16_t>(sum + row[columns[x] * channel.step]);
        }
    }
    return sums;
}

}  // namespace

Glance glance(const Image& image) {
    Glance seen{image.format, image.width, image.height, {}};
    for (const Channel& channel : channels_of(image)) seen.channels.push_back(sums_of(channel));
    return seen;
}

double difference(const Glance& first, const Glance& second) {
    if (first.format != second.format || first.width != second.width || first.height != second.height) {
        return std::numeric_limits<double>::infinity();
    }
    int most = 0;
    for (std::size_t channel = 0; channel < first.channels.size(); ++channel) {
        for (std::size_t cell = 0; cell < cells * cells; ++cell) {
            most = std::max(most, std::abs(first.channels[channel][cell] - second.channels[channel][cell]));
        }
    }
    return most / static_cast<double>(samples * samples);
}

}  // namespace clipedge
