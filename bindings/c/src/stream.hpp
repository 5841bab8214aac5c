// A camera's frames go in at any rate, events come out at the model's (clipedge/camera/stream.py).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "changes.hpp"
#include "clipedge/clipedge.h"
#include "keptframe.hpp"
#include "pixels.hpp"
#include "presence.hpp"

namespace clipedge {

// Frames of a stream: all that were seen are one of the others, or still wait for the model.
struct Counts {
    std::int64_t seen = 0;
    std::int64_t unchanged = 0;  // showed what the last one did: the model was not asked
    std::int64_t late = 0;       // a newer one came before the model was free
    std::int64_t answered = 0;
};

// Any thread may call any member, but for the destructor.
class Stream {
public:
    // The probabilities of the labels in a frame; called by the stream's own thread.
    using Answer = std::function<std::vector<double>(const Image&)>;

    Stream(Answer answer, EventRule rule);
    ~Stream();  // what waits is not answered any more
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // Never waits for an answer, unless `wait`: then until no other frame waits. Raises Error: CLIPEDGE_USAGE for a time
    // that is not later than the last frame's and for a stream that was closed, CLIPEDGE_IMAGE_ERROR for what is no
    // frame, and what ended the thread.
    void push(const Image& image, double timestamp, bool wait);
    // The next event; of the kind `none` if none comes within `timeout` seconds, `ended` if none comes any more. Raises
    // Error (CLIPEDGE_USAGE) for no timeout, and what ended the thread once every event was taken.
    Event next(double timeout);
    // Answers what still waits, and ends the thread. Raises what ended it before, unless another call did already.
    void close();

    Counts counts() const;
    // What is known after the newest frame that was answered or unchanged; of no labels before the first.
    Presence presence() const;

private:
    struct Waiting {
        double timestamp;
        bool repeats;  // the last answer; otherwise it is the frame in waiting_frame_
    };

    void check_open();
    [[noreturn]] void raise();
    bool frame_waits() const;
    std::int64_t drop();
    void run();
    void answer_all();
    std::optional<Waiting> take();

    const Answer answer_;
    const EventRule rule_;
    KeptFrame answered_frame_;  // the thread's own
    mutable std::mutex lock_;   // guards all that follows
    std::condition_variable changed_;
    std::deque<Waiting> waiting_;
    KeptFrame waiting_frame_;
    std::deque<Event> events_;
    Counts counts_;
    Presence presence_;
    std::optional<Glance> glance_;  // of the last frame that was not skipped
    double last_ = -std::numeric_limits<double>::infinity();
    bool closing_ = false, ended_ = false, raised_ = false;
    clipedge_status status_ = CLIPEDGE_OK;  // of what ended the thread
    std::string error_;
    std::thread thread_;
};

}  // namespace clipedge
