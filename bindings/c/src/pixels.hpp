// Pictures and camera frames -> the uint8 pixels that an image tower takes, bit for bit as the Python runtime has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace clipedge {

struct Kernels;

enum class Format : std::int32_t { rgb8 = 1, bgr8, rgba8, bgra8, gray8, nv12, i420, yuyv, uyvy };
enum class Matrix : std::int32_t { bt601 = 1, bt709 };
enum class Range : std::int32_t { limited = 1, full };
enum class ResizeMode : std::int32_t { shortest_edge = 1, squash };
enum class Interpolation : std::int32_t { nearest = 1, bilinear, bicubic, lanczos };
enum class CropOffset : std::int32_t { down = 1, half_even };

// One picture in a camera's memory layout. Strides are the bytes from one row to the next. Per format, with
// w2 = ceil(width / 2) and h2 = ceil(height / 2):
//
//     rgb8 bgr8     one plane, height rows of 3 width bytes
//     rgba8 bgra8   one plane, height rows of 4 width bytes; the fourth byte is padding and ignored
//     gray8         one plane, height rows of width bytes
//     yuyv uyvy     one plane, height rows of 4 w2 bytes (Y U Y V or U Y V Y)
//     nv12          Y: height rows of width bytes; UV interleaved: h2 rows of 2 w2 bytes
//     i420          Y: height rows of width bytes; U: h2 rows of w2 bytes; V: the same
//
// Matrix and range matter for YUV only. Nothing after the last row's last byte is read.
struct Image {
    const std::uint8_t* planes[3];
    std::size_t strides[3];
    std::int32_t width;
    std::int32_t height;
    Format format;
    Matrix matrix = Matrix::bt601;
    Range range = Range::limited;
};

// The manifest's fields of the same names; mean and std are in the graph.
struct Preprocessing {
    std::int32_t width;
    std::int32_t height;
    ResizeMode resize;
    std::int32_t shortest_edge;
    Interpolation interpolation;
    CropOffset crop_offset = CropOffset::down;
};

// Memory and filter weights that are worth keeping from frame to frame. One call at a time may use it.
class Scratch {
   public:
    Scratch();  // computes by the fastest loops for this processor
    explicit Scratch(const Kernels& kernels);
    Scratch(Scratch&&) noexcept;
    Scratch& operator=(Scratch&&) noexcept;
    ~Scratch();

    struct Buffers;
    std::unique_ptr<Buffers> buffers;
};

// Throws std::invalid_argument, naming what was expected and found, for an image that there cannot be, and for a side
// beyond 65,535 or more than 178,956,970 pixels.
void check(const Image& image);

// Writes how.height x how.width x 3 bytes of RGB: colour as in clipedge/images/frames.py, resize and crop as in
// clipedge/images/resize.py, where Pillow 13 does the resizing. Throws std::invalid_argument as check() does, also for
// a preprocessing that there cannot be and for too many pixels after resizing; std::bad_alloc. The memory used is about
// that of the picture between the two passes, resized along one side and cropped.
void preprocess(const Image& image, const Preprocessing& how, std::uint8_t* pixels, Scratch& scratch);
void preprocess(const Image& image, const Preprocessing& how, std::uint8_t* pixels);

}  // namespace clipedge
