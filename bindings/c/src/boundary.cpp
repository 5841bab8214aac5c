#include "boundary.hpp"

namespace clipedge {

namespace {

// Of a fixed size, so that to tell of memory that ran out needs none.
thread_local char text_of_error[2048] = "";

}  // namespace

const char* last_error() noexcept { return text_of_error; }

clipedge_status report(clipedge_status status, const char* text) noexcept {
    std::strncpy(text_of_error, text, sizeof(text_of_error) - 1);
    return status;
}

}  // namespace clipedge
