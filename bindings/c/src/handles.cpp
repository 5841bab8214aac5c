#include "handles.hpp"

#include "boundary.hpp"
#include "errors.hpp"

namespace clipedge {

std::vector<Image> images_of(const clipedge_image* first, std::size_t count) {
    std::vector<Image> images;
    if (count == 0) return images;
    const std::size_t step = given(first, "images").size;
    const auto* bytes = reinterpret_cast<const char*>(first);
    for (std::size_t i = 0; i < count; ++i) {
        const clipedge_image image = taken(reinterpret_cast<const clipedge_image*>(bytes + i * step), "clipedge_image");
        if (image.size != step) {
            fail(CLIPEDGE_USAGE, "images[", i, "].size is ", image.size, ", that of the first is ", step,
                 ": set it to sizeof(clipedge_image) in all");
        }
        images.push_back({{image.planes[0], image.planes[1], image.planes[2]},
                          {image.strides[0], image.strides[1], image.strides[2]},
                          image.width,
                          image.height,
                          static_cast<Format>(image.format),
                          static_cast<Matrix>(image.matrix == 0 ? CLIPEDGE_BT601 : image.matrix),
                          static_cast<Range>(image.range == 0 ? CLIPEDGE_LIMITED : image.range)});
    }
    return images;
}

void check_bank(const Bank& bank, const Model& model) {
    const Manifest& manifest = model.manifest();
    if (bank.space_id != manifest.space_id) {
        fail(CLIPEDGE_SPACE, "the prompt bank was made for another model (space ", bank.space_id.substr(0, 12),
             "...) than this bundle's ", manifest.source_model, " (space ", manifest.space_id.substr(0, 12),
             "...): make the bank with a bundle of this model");
    }
    if (bank.dim != model.dim()) {
        fail(CLIPEDGE_BUNDLE, "the prompt bank's embeddings have ", bank.dim, " numbers, this bundle's have ",
             model.dim(), ": the bank was altered; make it again");
    }
}

}  // namespace clipedge
