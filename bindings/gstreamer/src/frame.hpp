// A frame that waits for the model: a copy, which holds nothing of the pipeline's.
#pragma once

#include <cstdint>
#include <vector>

#include "clipedge/clipedge.h"

namespace clipedge::gst {

inline constexpr std::uint64_t no_time = UINT64_MAX;  // GST_CLOCK_TIME_NONE

// Where a frame stands in the stream, in nanoseconds.
struct Moment {
    std::uint64_t timestamp = no_time;  // the buffer's own
    std::uint64_t stream_time = no_time;
    std::uint64_t running_time = no_time;
    std::uint64_t duration = no_time;
};

struct Frame {
    clipedge_image image = CLIPEDGE_IMAGE;  // whose planes lie in `pixels`
    std::vector<std::uint8_t> pixels;
    Moment moment;
    std::uint64_t flushes = 0;  // of the stream, before this frame
};

}  // namespace clipedge::gst
