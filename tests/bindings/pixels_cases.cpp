// Runs the cases of a file, for builds that Python cannot load: with sanitizers, for other processors.
//
// The file holds, for each case, little-endian: the five numbers of an image and the six of a preprocessing (int32, as
// pixels_entry.h has them), three strides and three plane sizes (int64), the planes, and the pixels that are expected.
// Every plane gets memory of exactly its size. Exit status 1 at the first pixel that differs.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "pixels_entry.h"

namespace {

struct Case {
    std::int32_t image[5], how[6];
    std::int64_t strides[3], sizes[3];
};

[[noreturn]] void fail(int number, const char* what) {
    std::fprintf(stderr, "case %d: %s\n", number, what);
    std::exit(1);
}

template <typename T>
bool read(T* into, std::size_t count, std::FILE* file) {
    return std::fread(into, sizeof(T), count, file) == count;
}

std::unique_ptr<std::uint8_t[]> read_bytes(std::size_t size, std::FILE* file, int number) {
    std::unique_ptr<std::uint8_t[]> bytes(new std::uint8_t[size]);
    if (!read(bytes.get(), size, file)) fail(number, "the file ends early");
    return bytes;
}

void run(const Case& one, std::FILE* file, int number, void* const* scratches) {
    std::unique_ptr<std::uint8_t[]> memory[3];
    const std::uint8_t* planes[3];
    std::size_t strides[3];
    for (int i = 0; i < 3; ++i) {
        memory[i] = read_bytes(static_cast<std::size_t>(one.sizes[i]), file, number);
        planes[i] = memory[i].get();
        strides[i] = static_cast<std::size_t>(one.strides[i]);
    }
    const std::size_t size = 3 * static_cast<std::size_t>(one.how[0]) * static_cast<std::size_t>(one.how[1]);
    const auto expected = read_bytes(size, file, number);
    for (int i = 0; i < 2; ++i) {
        if (scratches[i] == nullptr) continue;
        std::unique_ptr<std::uint8_t[]> pixels(new std::uint8_t[size]);
        char message[400];
        if (pixels_preprocess(scratches[i], planes, strides, one.image, one.how, pixels.get(), message,
                              sizeof message) != 0) {
            fail(number, message);
        }
        if (std::memcmp(pixels.get(), expected.get(), size) != 0) fail(number, "the pixels differ");
    }
}

}  // namespace

int main(int count, char** arguments) {
    std::FILE* file = count == 2 ? std::fopen(arguments[1], "rb") : nullptr;
    if (file == nullptr) fail(0, "expected a file of cases");
    void* const scratches[] = {pixels_scratch(0), pixels_scratch(1)};
    int number = 0;
    Case one;
    for (; read(&one, 1, file); ++number) run(one, file, number, scratches);
    for (void* scratch : scratches) pixels_free(scratch);
    std::fclose(file);
    std::printf("%d cases, %s\n", number, scratches[1] == nullptr ? "no AVX2" : "with and without AVX2");
    return 0;
}
