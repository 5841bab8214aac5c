// What the properties of the element say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace clipedge::gst {

// How the bundle is loaded. Taken when the element starts.
struct Loading {
    std::string bundle;
    std::string bank = "default";  // a name in the bundle, or a path
    std::string variant;           // "": the one that suits the processor
    std::int32_t provider = 0;     // a clipedge_provider
    std::int32_t device = 0;
    std::int32_t threads = 0;
    bool sleeping = true;  // other elements want the processor, too
};

// What is asked, and what of the answer is told. May change while frames pass.
struct Asking {
    std::size_t top_k = 3;
    float threshold = 0;
    std::uint64_t interval = 100'000'000;  // nanoseconds
};

}  // namespace clipedge::gst
