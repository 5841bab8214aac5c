// What stands between C and C++: statuses in place of exceptions, and the caller's pointers and structs, checked.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <new>

#include "errors.hpp"

namespace clipedge {

// What report() kept in this thread.
const char* last_error() noexcept;

// Keeps the text as this thread's last error.
clipedge_status report(clipedge_status status, const char* text) noexcept;

template <typename Body>
clipedge_status guarded(const Body& body) noexcept {
    try {
        body();
        return CLIPEDGE_OK;
    } catch (const Error& error) {
        return report(error.status(), error.what());
    } catch (const std::bad_alloc&) {
        return report(CLIPEDGE_NO_MEMORY, "there is not enough memory: encode fewer images at once, or free some");
    } catch (const std::exception& error) {
        return report(CLIPEDGE_INTERNAL, error.what());
    } catch (...) {
        return report(CLIPEDGE_INTERNAL, "an unknown error: please report it");
    }
}

template <typename T>
T& given(T* pointer, const char* name) {
    if (!pointer) fail(CLIPEDGE_USAGE, name, " is NULL: give one");
    return *pointer;
}

// A struct of the caller's, whose size may be that of an older or a newer header. What it lacks is as in `ours`; what is
// not known here has to be 0.
template <typename Struct>
Struct taken(const Struct* theirs, const char* name, Struct ours = {}) {
    const std::size_t size = given(theirs, name).size;
    if (size < sizeof(std::size_t) || size > 4096) {
        fail(CLIPEDGE_USAGE, name, ": its size is ", size, ", expected sizeof(", name, "): set it");
    }
    const auto* bytes = reinterpret_cast<const char*>(theirs);
    for (std::size_t i = sizeof(Struct); i < size; ++i) {
        if (bytes[i] != 0) {
            fail(CLIPEDGE_UNSUPPORTED, name, " has parts that this library does not know: update it, or leave them 0");
        }
    }
    std::memcpy(&ours, theirs, std::min(size, sizeof(Struct)));
    return ours;
}

// The reverse: as much of `ours` as the caller's struct holds.
template <typename Struct>
void give(Struct ours, Struct* theirs, const char* name) {
    taken(theirs, name);
    ours.size = theirs->size;
    std::memcpy(theirs, &ours, std::min(ours.size, sizeof(Struct)));
}

inline void check_capacity(std::size_t capacity, std::size_t count, std::size_t width, const char* name) {
    if (width != 0 && count > capacity / width) {
        fail(CLIPEDGE_USAGE, name, " holds ", capacity, ", expected ", count, " times ", width,
             ": give a larger buffer");
    }
}

}  // namespace clipedge
