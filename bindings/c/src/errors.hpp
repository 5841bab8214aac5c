// The one exception of this library. Its text says what was expected, what was found, and what to do.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#include "clipedge/clipedge.h"

namespace clipedge {

class Error : public std::runtime_error {
public:
    Error(clipedge_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
    clipedge_status status() const noexcept { return status_; }

private:
    clipedge_status status_;
};

// The parts one after the other, as a stream writes them.
template <typename... Parts>
std::string joined(const Parts&... parts) {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    (text << ... << parts);
    return text.str();
}

template <typename... Parts>
[[noreturn]] void fail(clipedge_status status, const Parts&... parts) {
    throw Error(status, joined(parts...));
}

}  // namespace clipedge
