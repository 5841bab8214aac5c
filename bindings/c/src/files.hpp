// Files, read whole or mapped into memory (POSIX).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace clipedge {

bool is_file(const std::string& path);

// The bytes of a file. Raises Error (CLIPEDGE_BUNDLE) for one that is missing, unreadable or larger than `most`.
std::string read_file(const std::string& path, std::size_t most);

// A file in memory, as long as this object lives. Whoever cuts it off meanwhile ends the process, as with every map:
// files of bundles and indexes are only ever replaced.
class MappedFile {
public:
    // Raises Error (CLIPEDGE_BUNDLE) where it is missing or unreadable.
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    MappedFile& operator=(MappedFile&&) = delete;

    std::string_view bytes() const noexcept { return {static_cast<const char*>(memory_), size_}; }

private:
    void* memory_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace clipedge
