#include "files.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "errors.hpp"

namespace clipedge {

namespace {

[[noreturn]] void unreadable(const std::string& path, int error) {
    fail(CLIPEDGE_BUNDLE, path, " cannot be read (", std::system_category().message(error),
         "): copy the whole folder again");
}

// An open file and its size.
struct Descriptor {
    int number = -1;
    std::size_t size = 0;

    explicit Descriptor(const std::string& path) : number(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
        if (number < 0) unreadable(path, errno);
        struct stat found{};
        if (::fstat(number, &found) != 0 || !S_ISREG(found.st_mode)) {
            const int error = S_ISDIR(found.st_mode) ? EISDIR : EINVAL;
            ::close(number);
            unreadable(path, error);
        }
        size = static_cast<std::size_t>(found.st_size);
    }
    ~Descriptor() { ::close(number); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
};

}  // namespace

bool is_file(const std::string& path) {
    struct stat found{};
    return ::stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode);
}

std::string read_file(const std::string& path, std::size_t most) {
    const Descriptor file(path);
    if (file.size > most) {
        fail(CLIPEDGE_BUNDLE, path, " has ", file.size, " bytes, expected ", most, " at most: make or copy it again");
    }
    std::string text(file.size, '\0');
    std::size_t filled = 0;
    while (filled < text.size()) {
        const ssize_t read = ::read(file.number, text.data() + filled, text.size() - filled);
        if (read < 0 && errno == EINTR) continue;
        if (read < 0) unreadable(path, errno);
        if (read == 0) break;
        filled += static_cast<std::size_t>(read);
    }
    text.resize(filled);
    return text;
}

MappedFile::MappedFile(const std::string& path) {
    const Descriptor file(path);
    if (file.size == 0) return;
    memory_ = ::mmap(nullptr, file.size, PROT_READ, MAP_PRIVATE, file.number, 0);
    if (memory_ == MAP_FAILED) {
        memory_ = nullptr;
        unreadable(path, errno);
    }
    size_ = file.size;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
    if (memory_ != nullptr) ::munmap(memory_, size_);
}

}  // namespace clipedge
