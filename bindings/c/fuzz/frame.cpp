// A frame of any format, size and strides, in planes that end where its last row does: what looks at it, keeps it and
// makes pixels of it. The first bytes say what frame, the rest is in it over and over.
#include "changes.hpp"
#include "colour.hpp"
#include "keptframe.hpp"
#include "pixels.hpp"

#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "target.hpp"

using clipedge::Image;

namespace {

constexpr std::size_t header = 8;

// Each plane in memory of its own, so that a sanitizer sees every byte that is read beyond it.
std::vector<std::vector<std::uint8_t>> planes_of(const Image& image, const std::uint8_t* data, std::size_t size) {
    const clipedge::Layout layout = clipedge::layout_of(image.format, image.width, image.height);
    std::vector<std::vector<std::uint8_t>> planes;
    std::size_t place = 0;
    for (std::size_t i = 0; i < layout.plane_count; ++i) {
        const auto [rows, row_bytes] = layout.planes[i];
        const std::size_t bytes = rows == 0 ? 0 : (rows - 1) * image.strides[i] + row_bytes;
        std::vector<std::uint8_t>& plane = planes.emplace_back(bytes);
        for (std::uint8_t& byte : plane) byte = size == 0 ? 0 : data[place++ % size];
    }
    return planes;
}

void look(Image& image, const std::uint8_t* data, std::size_t size, std::uint8_t side) {
    const std::vector<std::vector<std::uint8_t>> planes = planes_of(image, data, size);
    for (std::size_t i = 0; i < planes.size(); ++i) image.planes[i] = planes[i].data();
    clipedge::check(image);
    clipedge::KeptFrame kept;
    clipedge::keep(image, kept);
    if (clipedge::difference(clipedge::glance(image), clipedge::glance(kept.image)) != 0) std::abort();
    const auto edge = static_cast<std::int32_t>(1 + side % 64);
    const clipedge::Preprocessing how{edge, edge, clipedge::ResizeMode::squash, edge, clipedge::Interpolation::bicubic};
    std::vector<std::uint8_t> pixels(3 * static_cast<std::size_t>(edge * edge)), again(pixels.size());
    clipedge::preprocess(image, how, pixels.data());
    clipedge::preprocess(kept.image, how, again.data());
    if (pixels != again) std::abort();
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < header) return 0;
    Image image{};
    image.format = static_cast<clipedge::Format>(data[0] % 11);
    image.width = data[1];
    image.height = data[2];
    for (std::size_t i = 0; i < 3; ++i) image.strides[i] = static_cast<std::size_t>(data[3 + i]) * (1 + data[6] % 5);
    image.matrix = static_cast<clipedge::Matrix>(1 + data[6] / 5 % 2);
    image.range = static_cast<clipedge::Range>(1 + data[6] / 10 % 2);
    try {
        look(image, data + header, size - header, data[7]);
    } catch (const std::invalid_argument&) {
    }
    return 0;
}
