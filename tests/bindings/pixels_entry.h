// The preprocessing of libclipedge as plain C functions, for tests and benchmarks: the library itself exports none.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// Scratch of the loops for any processor (0) or of those for AVX2 (1); null where the processor has no AVX2.
void* pixels_scratch(std::int32_t avx2);
void pixels_free(void* scratch);

// `image` is width, height, format, matrix, range; `how` is width, height, resize, shortest edge, interpolation, crop
// offset. Returns 0, or 1 with a message of at most `room` bytes.
std::int32_t pixels_preprocess(void* scratch, const std::uint8_t* const* planes, const std::size_t* strides,
                               const std::int32_t* image, const std::int32_t* how, std::uint8_t* pixels, char* message,
                               std::size_t room);
}
