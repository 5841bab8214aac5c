// clipedge::Stream: the events of a camera's frames from C++17, over stream.h, whose rules hold here, too.
//
//     clipedge::Stream stream(model, bank);
//     while (camera.read(pixels, seconds)) {
//         stream.push(clipedge::image(pixels, 640, 480, CLIPEDGE_BGR8), seconds);
//         while (const auto event = stream.next(0)) std::printf("%.2f %s\n", event->timestamp, event->label);
//     }
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "clipedge/clipedge.hpp"
#include "clipedge/stream.h"

namespace clipedge {

inline clipedge_stream_options stream_options() { return CLIPEDGE_STREAM_OPTIONS; }

// What is known after a frame at `timestamp`, NAN before the first answer; one number a label.
struct Presence {
    double timestamp;
    std::vector<double> smoothed;
    std::vector<std::uint8_t> present;
};

// Movable, not copyable. Model and bank have to outlive it: declare them first. Its end answers nothing that still
// waits; close() does.
class Stream {
public:
    Stream(const Model& model, const Bank& bank) : Stream(model, bank, stream_options()) {}
    Stream(const Model& model, const Bank& bank, const clipedge_stream_options& options) : labels_(bank.size()) {
        clipedge_stream* stream = nullptr;
        check(clipedge_stream_create(model.get(), bank.get(), &options, &stream));
        handle_.reset(stream);
    }

    void push(const clipedge_image& image, double timestamp, bool wait = false) {
        check(clipedge_stream_push(handle_.get(), &image, timestamp, wait ? 1 : 0));
    }

    // None if none comes within so many seconds; without a limit, none if none comes any more.
    std::optional<clipedge_event> next(double timeout = std::numeric_limits<double>::infinity()) {
        clipedge_event event = CLIPEDGE_EVENT;
        check(clipedge_stream_next(handle_.get(), timeout, &event));
        if (event.label == nullptr) return std::nullopt;
        return event;
    }

    void close() { check(clipedge_stream_close(handle_.get())); }

    clipedge_counts counts() const {
        clipedge_counts found = CLIPEDGE_COUNTS;
        check(clipedge_stream_counts(handle_.get(), &found));
        return found;
    }

    Presence presence() const {
        Presence found{0, std::vector<double>(labels_), std::vector<std::uint8_t>(labels_)};
        double* const smoothed = found.smoothed.data();
        check(clipedge_stream_presence(handle_.get(), &found.timestamp, smoothed, found.present.data(), labels_));
        return found;
    }

    const clipedge_stream* get() const noexcept { return handle_.get(); }

private:
    struct Free {
        void operator()(clipedge_stream* stream) const noexcept { clipedge_stream_free(stream); }
    };

    std::unique_ptr<clipedge_stream, Free> handle_;
    std::size_t labels_;
};

}  // namespace clipedge
