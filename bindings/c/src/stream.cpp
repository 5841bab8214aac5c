#include "stream.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

#include "boundary.hpp"
#include "errors.hpp"

namespace clipedge {

namespace {

constexpr double longest_timeout = 1e9;  // seconds; a clock's count of what is longer would overflow
constexpr std::size_t error_room = 2048;

void checked(const Image& image) {
    try {
        check(image);
    } catch (const std::invalid_argument& error) {
        fail(CLIPEDGE_IMAGE_ERROR, error.what());
    }
}

}  // namespace

Stream::Stream(Answer answer, EventRule rule) : answer_(std::move(answer)), rule_(std::move(rule)) {
    error_.reserve(error_room);  // so that to tell of memory that ran out needs none
    thread_ = std::thread([this] { run(); });
}

Stream::~Stream() {
    {
        const std::lock_guard<std::mutex> lock(lock_);
        closing_ = true;
        waiting_.clear();
    }
    changed_.notify_all();
    thread_.join();
}

void Stream::push(const Image& image, double timestamp, bool wait) {
    checked(image);
    Glance seen = glance(image);
    std::unique_lock<std::mutex> lock(lock_);
    check_open();
    while (wait && frame_waits()) {
        changed_.wait(lock);
        check_open();
    }
    check_later(timestamp, last_);
    const bool repeats = glance_ && difference(*glance_, seen) <= changed;
    if (!repeats) {
        keep(image, waiting_frame_);
        counts_.late += drop();
        glance_ = std::move(seen);
    }
    waiting_.push_back({timestamp, repeats});
    last_ = timestamp;
    ++counts_.seen;
    counts_.unchanged += repeats ? 1 : 0;
    changed_.notify_all();
}

Event Stream::next(double timeout) {
    if (!(timeout >= 0)) {
        fail(CLIPEDGE_USAGE, "timeout: expected seconds, 0 or more, INFINITY for no limit, found ", timeout);
    }
    std::unique_lock<std::mutex> lock(lock_);
    const auto is_ready = [this] { return !events_.empty() || ended_; };
    if (timeout < longest_timeout) {
        changed_.wait_for(lock, std::chrono::duration<double>(timeout), is_ready);
    } else {
        changed_.wait(lock, is_ready);
    }
    Event event;
    if (!events_.empty()) {
        event = events_.front();
        events_.pop_front();
    } else if (ended_) {
        if (status_ != CLIPEDGE_OK) raise();
        event.kind = Event::Kind::ended;
    }
    return event;
}

void Stream::close() {
    std::unique_lock<std::mutex> lock(lock_);
    closing_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return ended_; });
    if (status_ != CLIPEDGE_OK && !raised_) raise();
}

Counts Stream::counts() const {
    const std::lock_guard<std::mutex> lock(lock_);
    return counts_;
}

Presence Stream::presence() const {
    const std::lock_guard<std::mutex> lock(lock_);
    return presence_;
}

void Stream::check_open() {
    if (status_ != CLIPEDGE_OK) raise();
    if (closing_) fail(CLIPEDGE_USAGE, "the stream is closed; make a new one for more frames");
}

void Stream::raise() {
    raised_ = true;
    fail(status_, error_);
}

bool Stream::frame_waits() const {
    return std::any_of(waiting_.begin(), waiting_.end(), [](const Waiting& item) { return !item.repeats; });
}

// Takes the frame that waits out of the queue, and those that repeat it: how many were late, 0 or 1.
std::int64_t Stream::drop() {
    const auto frame = std::find_if(waiting_.begin(), waiting_.end(), [](const Waiting& item) { return !item.repeats; });
    const bool is_late = frame != waiting_.end();
    waiting_.erase(frame, waiting_.end());
    return is_late ? 1 : 0;
}

void Stream::run() {
    const clipedge_status status = guarded([this] { answer_all(); });
    const std::lock_guard<std::mutex> lock(lock_);
    status_ = status;
    if (status != CLIPEDGE_OK) error_ = last_error();
    ended_ = true;
    waiting_.clear();
    changed_.notify_all();
}

void Stream::answer_all() {
    while (const std::optional<Waiting> item = take()) {
        std::vector<double> probabilities;
        if (!item->repeats) probabilities = answer_(answered_frame_.image);
        const std::lock_guard<std::mutex> lock(lock_);
        observe(presence_, item->timestamp, item->repeats ? nullptr : &probabilities, rule_, events_);
        if (!item->repeats) ++counts_.answered;
        changed_.notify_all();
    }
}

// The next frame, whose memory is then in answered_frame_ unless it repeats; none once the stream is closed.
std::optional<Stream::Waiting> Stream::take() {
    std::unique_lock<std::mutex> lock(lock_);
    changed_.wait(lock, [this] { return !waiting_.empty() || closing_; });
    if (waiting_.empty()) return std::nullopt;
    const Waiting item = waiting_.front();
    waiting_.pop_front();
    if (!item.repeats) std::swap(waiting_frame_, answered_frame_);
    changed_.notify_all();
    return item;
}

}  // namespace clipedge
