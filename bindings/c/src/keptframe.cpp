#include "keptframe.hpp"

#include <cstring>

#include "colour.hpp"

namespace clipedge {

void keep(const Image& image, KeptFrame& kept) {
    const Layout layout = layout_of(image.format, image.width, image.height);
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < layout.plane_count; ++i) bytes += layout.planes[i].rows * layout.planes[i].row_bytes;
    kept.memory.resize(bytes);
    kept.image = image;
    std::uint8_t* into = kept.memory.data();
    for (std::size_t i = 0; i < layout.plane_count; ++i) {
        const auto [rows, row_bytes] = layout.planes[i];
        kept.image.planes[i] = into;
        kept.image.strides[i] = row_bytes;
        for (std::size_t row = 0; row < rows; ++row, into += row_bytes) {
            std::memcpy(into, image.planes[i] + row * image.strides[i], row_bytes);
        }
    }
}

}  // namespace clipedge
