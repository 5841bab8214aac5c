// SHA-256 (FIPS 180-4), to tell whether a file is the one that was exported.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace clipedge {

class Sha256 {
public:
    void update(std::string_view bytes);
    // The digest in hex; the object is then used up.
    std::string hex();

private:
    void block(const unsigned char* bytes);

    std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<unsigned char, 64> pending_{};
    std::uint64_t length_ = 0;
};

// Of a file's bytes, read in pieces. Raises Error (CLIPEDGE_BUNDLE) where it cannot be read.
std::string sha256_of_file(const std::string& path);

}  // namespace clipedge
