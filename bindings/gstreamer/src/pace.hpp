// Which frames of a stream are classified: at most one in an interval, on average.
#pragma once

#include <cstdint>

#include "frame.hpp"

namespace clipedge::gst {

class Pace {
public:
    // Whether a frame at a running time is due, and then the next one is due an interval later. That is counted from
    // when this one was due rather than from when it came: otherwise 30 frames a second at an interval of 0.1 s would
    // give 7.5 answers wherever rounding puts a frame a nanosecond too early. A frame without a time is always due.
    bool is_due(std::uint64_t now, std::uint64_t interval) {
        if (now == no_time) return true;
        const bool is_early = now < due_;
        if (is_early && due_ - now <= interval) return false;  // what is further off was set by a longer interval
        const bool keeps_step = !is_early && now - due_ < interval;
        due_ = keeps_step ? due_ + interval : now + interval;
        return true;
    }

    void restart() { due_ = 0; }

private:
    std::uint64_t due_ = 0;
};

}  // namespace clipedge::gst
