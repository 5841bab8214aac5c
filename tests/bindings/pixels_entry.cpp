#include "pixels_entry.h"

#include <cstdio>
#include <exception>

#include "kernels.hpp"
#include "pixels.hpp"

using namespace clipedge;

void* pixels_scratch(std::int32_t avx2) {
    const Kernels* kernels = avx2 != 0 ? avx2_kernels() : &portable_kernels();
    return kernels == nullptr ? nullptr : new Scratch(*kernels);
}

void pixels_free(void* scratch) { delete static_cast<Scratch*>(scratch); }

std::int32_t pixels_preprocess(void* scratch, const std::uint8_t* const* planes, const std::size_t* strides,
                               const std::int32_t* image, const std::int32_t* how, std::uint8_t* pixels, char* message,
                               std::size_t room) {
    const Image frame{{planes[0], planes[1], planes[2]},
                      {strides[0], strides[1], strides[2]},
                      image[0],
                      image[1],
                      static_cast<Format>(image[2]),
                      static_cast<Matrix>(image[3]),
                      static_cast<Range>(image[4])};
    const Preprocessing preprocessing{how[0],
                                      how[1],
                                      static_cast<ResizeMode>(how[2]),
                                      how[3],
                                      static_cast<Interpolation>(how[4]),
                                      static_cast<CropOffset>(how[5])};
    try {
        preprocess(frame, preprocessing, pixels, *static_cast<Scratch*>(scratch));
        return 0;
    } catch (const std::exception& error) {
        std::snprintf(message, room, "%s", error.what());
        return 1;
    }
}
