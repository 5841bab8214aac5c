#include "pixels.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include "axis.hpp"
#include "colour.hpp"
#include "kernels.hpp"
#include "resize.hpp"

namespace clipedge {

struct Scratch::Buffers {
    const Kernels* kernels;
    ColourRows colours;
    Axis across, down;
    Strip strip;
    Rows converted, between, resized;
};

namespace {

constexpr std::int64_t max_pixels = 178'956'970;  // as in clipedge/images/pixels.py: where Pillow gives up
constexpr std::int32_t max_side = 65'535;
constexpr std::int32_t max_size = 8192;  // of the manifest's sizes
constexpr std::size_t strip_pixels = 64;
static_assert(strip_pixels % 2 == 0 && 3 * strip_pixels % block == 0, "strips of whole chroma samples and blocks");

// The size that a picture is resized to, and what is then cut out of it; that may reach beyond the picture.
struct Fit {
    std::int32_t width, height, left, top, right, bottom;
};

std::string size_text(std::int64_t width, std::int64_t height) {
    return std::to_string(width) + " x " + std::to_string(height);
}

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

void check_choice(const char* name, std::int32_t value, std::int32_t last) {
    if (value < 1 || value > last) {
        refuse("expected " + std::string(name) + " from 1 to " + std::to_string(last) + ", found " +
               std::to_string(value));
    }
}

void check(const Preprocessing& how) {
    for (const std::int32_t size : {how.width, how.height, how.shortest_edge}) {
        if (size < 1 || size > max_size) {
            refuse("expected sizes of the preprocessing from 1 to " + std::to_string(max_size) + ", found " +
                   std::to_string(size));
        }
    }
    check_choice("a resize mode", static_cast<std::int32_t>(how.resize), 2);
    check_choice("an interpolation", static_cast<std::int32_t>(how.interpolation), 4);
    check_choice("a crop offset", static_cast<std::int32_t>(how.crop_offset), 2);
}

// Half of what is cut off, rounded as the model's own preprocessing does.
std::int32_t crop_start(std::int32_t surplus, CropOffset offset) {
    const bool odd = surplus % 2 != 0;
    const std::int32_t half = odd && surplus < 0 ? (surplus - 1) / 2 : surplus / 2;  // rounded down
    return offset == CropOffset::half_even && odd && half % 2 != 0 ? half + 1 : half;
}

Fit plan(const Image& image, const Preprocessing& how) {
    if (how.resize == ResizeMode::squash) return {how.width, how.height, 0, 0, how.width, how.height};
    const std::int64_t edge = how.shortest_edge;
    const bool upright = image.width <= image.height;
    // This order of operations, in floating point, truncated: any other moves some sizes by one pixel.
    const double longer = upright ? static_cast<double>(edge * image.height) / image.width
                                  : static_cast<double>(edge * image.width) / image.height;
    const std::int32_t width = upright ? how.shortest_edge : static_cast<std::int32_t>(longer);
    const std::int32_t height = upright ? static_cast<std::int32_t>(longer) : how.shortest_edge;
    if (static_cast<std::int64_t>(width) * height > max_pixels) {
        refuse("with its shorter side scaled to " + std::to_string(how.shortest_edge) + ", an image of " +
               size_text(image.width, image.height) + " would be " + size_text(width, height) +
               "; cut out the part that matters first");
    }
    const std::int32_t left = crop_start(width - how.width, how.crop_offset);
    const std::int32_t top = crop_start(height - how.height, how.crop_offset);
    return {width, height, left, top, left + how.width, top + how.height};
}

// The part of the crop that lies in the resized picture.
Fit inside(const Fit& fit) {
    return {fit.width, fit.height, std::max(fit.left, 0), std::max(fit.top, 0), std::min(fit.right, fit.width),
            std::min(fit.bottom, fit.height)};
}

// Pillow 13's order; earlier releases always begin along the rows, which moves pixels of such pictures by one.
bool columns_come_first(const Image& image, const Fit& fit) {
    return image.height - fit.height > std::max(0, 2 * (image.width - fit.width));
}

// The source rows [rows.first, rows.end) along the rows, into buffers.between.
void rows_first(const Columns& columns, Span rows, Span read, Scratch::Buffers& buffers) {
    const std::size_t count = static_cast<std::size_t>(rows.end - rows.first);
    buffers.converted.reserve(lanes, columns.right - columns.left);
    buffers.between.reserve(count, buffers.across.first.size());
    for (std::size_t done = 0; done < count; done += lanes) {
        const std::uint8_t* in[lanes];
        std::uint8_t* out[lanes];
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            const std::size_t row = std::min(done + lane, count - 1);  // the last one again where there are no more
            in[lane] = rgb_row(columns, rows.first + static_cast<std::int32_t>(row), buffers.converted.at(lane));
            out[lane] = buffers.between.at(done + lane);
        }
        resize_rows(*buffers.kernels, in, buffers.across, read, buffers.strip, out);
    }
    resize_columns(*buffers.kernels, buffers.between, rows.first, buffers.down, buffers.resized, 0);
}

// In strips of columns, so that a large picture is never all in memory as RGB.
void columns_first(const Columns& columns, Span rows, Span read, Scratch::Buffers& buffers) {
    const std::size_t count = static_cast<std::size_t>(rows.end - rows.first), outputs = buffers.down.first.size();
    buffers.between.reserve(outputs, columns.right - columns.left);
    for (std::size_t left = columns.left; left < columns.right; left += strip_pixels) {
        const Columns strip{columns.image, left, std::min(left + strip_pixels, columns.right), columns.kernels,
                            columns.colours};
        const std::size_t pixels = strip.right - strip.left;
        prepare(strip);
        buffers.converted.reserve(count, pixels);
        for (std::size_t row = 0; row < count; ++row) {
            std::uint8_t* into = buffers.converted.at(row);
            const std::uint8_t* rgb = rgb_row(strip, rows.first + static_cast<std::int32_t>(row), into);
            if (rgb != into) std::memcpy(into, rgb, 3 * pixels);
        }
        resize_columns(*buffers.kernels, buffers.converted, rows.first, buffers.down, buffers.between,
                       3 * (left - columns.left));
    }
    for (std::size_t done = 0; done < outputs; done += lanes) {
        const std::uint8_t* in[lanes];
        std::uint8_t* out[lanes];
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            in[lane] = buffers.between.at(done + lane);
            out[lane] = buffers.resized.at(done + lane);
        }
        resize_rows(*buffers.kernels, in, buffers.across, read, buffers.strip, out);
    }
}

// Into buffers.resized, the part `kept` of the resized picture.
void resize(const Image& image, const Fit& kept, Interpolation interpolation, Scratch::Buffers& buffers) {
    update(buffers.across, image.width, kept.width, kept.left, kept.right, interpolation);
    update(buffers.down, image.height, kept.height, kept.top, kept.bottom, interpolation);
    const Span rows = samples_read(buffers.down);
    Span read = samples_read(buffers.across);
    read.first -= read.first % 2;
    const Columns columns{image, static_cast<std::size_t>(read.first), static_cast<std::size_t>(read.end),
                          *buffers.kernels, buffers.colours};
    prepare(columns);
    buffers.resized.reserve(buffers.down.first.size(), buffers.across.first.size());
    (columns_come_first(image, kept) ? columns_first : rows_first)(columns, rows, read, buffers);
}

// The same with the nearest pixels.
void pick_nearest(const Image& image, const Fit& kept, Scratch::Buffers& buffers) {
    const auto across = nearest_samples(image.width, kept.width, kept.left, kept.right);
    const auto down = nearest_samples(image.height, kept.height, kept.top, kept.bottom);
    const Columns columns{image, 0, static_cast<std::size_t>(image.width), *buffers.kernels, buffers.colours};
    prepare(columns);
    buffers.converted.reserve(1, columns.right);
    buffers.resized.reserve(down.size(), across.size());
    for (std::size_t y = 0; y < down.size(); ++y) {
        std::uint8_t* out = buffers.resized.at(y);
        std::memset(out, 0, 3 * across.size());
        if (down[y] < 0) continue;
        const std::uint8_t* row = rgb_row(columns, down[y], buffers.converted.at(0));
        for (std::size_t x = 0; x < across.size(); ++x) {
            if (across[x] >= 0) std::memcpy(out + 3 * x, row + 3 * static_cast<std::size_t>(across[x]), 3);
        }
    }
}

}  // namespace

void check(const Image& image) {
    if (image.width < 1 || image.height < 1) {
        refuse("expected an image with a width and height of at least 1, found " +
               size_text(image.width, image.height));
    }
    if (image.width > max_side || image.height > max_side ||
        static_cast<std::int64_t>(image.width) * image.height > max_pixels) {
        refuse("expected an image of at most " + std::to_string(max_side) + " pixels a side and " +
               std::to_string(max_pixels) + " in all, found " + size_text(image.width, image.height) +
               "; scale it down first");
    }
    const Layout layout = layout_of(image.format, image.width, image.height);
    check_choice("an image's matrix", static_cast<std::int32_t>(image.matrix), 2);
    check_choice("an image's range", static_cast<std::int32_t>(image.range), 2);
    for (std::size_t i = 0; i < layout.plane_count; ++i) {
        const auto [rows, row_bytes] = layout.planes[i];
        const std::string plane = "plane " + std::to_string(i) + " of an image of " +
                                  size_text(image.width, image.height) + " in format " +
                                  std::to_string(static_cast<std::int32_t>(image.format));
        if (image.planes[i] == nullptr) refuse("expected " + plane + ", found a null pointer");
        if (image.strides[i] < row_bytes) {
            refuse(plane + " needs " + std::to_string(row_bytes) + " bytes per row, found a stride of " +
                   std::to_string(image.strides[i]) + "; a stride counts bytes, not pixels");
        }
        if (image.strides[i] > std::numeric_limits<std::ptrdiff_t>::max() / rows) {
            refuse(plane + ": a stride of " + std::to_string(image.strides[i]) + " bytes goes beyond every memory");
        }
    }
}

Scratch::Scratch() : Scratch(fastest_kernels()) {}
Scratch::Scratch(const Kernels& kernels) : buffers(std::make_unique<Buffers>()) { buffers->kernels = &kernels; }
Scratch::Scratch(Scratch&&) noexcept = default;
Scratch& Scratch::operator=(Scratch&&) noexcept = default;
Scratch::~Scratch() = default;

void preprocess(const Image& image, const Preprocessing& how, std::uint8_t* pixels, Scratch& scratch) {
    check(image);
    check(how);
    const Fit fit = plan(image, how);
    const Fit kept = inside(fit);
    if (how.interpolation == Interpolation::nearest) {
        pick_nearest(image, kept, *scratch.buffers);
    } else {
        resize(image, kept, how.interpolation, *scratch.buffers);
    }
    const std::size_t row_bytes = 3 * static_cast<std::size_t>(how.width);
    const std::size_t kept_bytes = 3 * static_cast<std::size_t>(kept.right - kept.left);
    const std::size_t before = 3 * static_cast<std::size_t>(kept.left - fit.left);
    for (std::int32_t y = fit.top; y < fit.bottom; ++y, pixels += row_bytes) {
        if (y < kept.top || y >= kept.bottom || kept_bytes < row_bytes) std::memset(pixels, 0, row_bytes);
        if (y < kept.top || y >= kept.bottom) continue;
        std::memcpy(pixels + before, scratch.buffers->resized.at(static_cast<std::size_t>(y - kept.top)), kept_bytes);
    }
}

void preprocess(const Image& image, const Preprocessing& how, std::uint8_t* pixels) {
    Scratch scratch;
    preprocess(image, how, pixels, scratch);
}

}  // namespace clipedge
