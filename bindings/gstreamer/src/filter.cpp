#include "filter.hpp"

#include <exception>

#include "capture.hpp"

namespace clipedge::gst {

namespace {

// How long the end of a stream waits for the last answer. A large model on a small board takes seconds.
constexpr std::chrono::seconds drain_bound{10};

}  // namespace

void Filter::start(const Loading& loading) {
    classifier_ = std::make_unique<Classifier>(loading);
    failed_ = false;
    pace_.restart();
    worker_.start([this](const Frame& frame) { return answer(frame); });
}

void Filter::stop() {
    worker_.stop();
    classifier_.reset();
    forget();
}

void Filter::set_format(const GstVideoInfo& info) {
    description_ = described(info);
    info_ = info;
}

bool Filter::pass(GstBuffer* buffer, const GstSegment& segment) {
    if (failed_) return false;
    // Before the frame is offered: however fast the model is, what a buffer carries is of an earlier one.
    if (const auto found = newest()) attach(*found, buffer);
    const Moment moment = moment_of(buffer, segment);
    if (pace_.is_due(moment.running_time, asking().interval)) {
        capture(buffer, info_, description_, frame_);
        frame_.moment = moment;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            frame_.flushes = flushes_;
        }
        worker_.offer(frame_);
    }
    return true;
}

bool Filter::drain() { return worker_.drain(drain_bound); }

void Filter::flush_start() {
    worker_.flush_start();
    forget();
}

void Filter::flush_stop() {
    forget();
    pace_.restart();
    worker_.flush_stop();
}

Asking Filter::asking() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return asking_;
}

void Filter::set_asking(const Asking& asking) {
    const std::lock_guard<std::mutex> lock(mutex_);
    asking_ = asking;
}

// In the worker's thread.
bool Filter::answer(const Frame& frame) {
    try {
        const Answer found{frame.moment, classifier_->best(frame.image, asking())};
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (frame.flushes != flushes_) return true;  // of a part of the stream that nobody looks at any more
            newest_ = std::make_shared<const Answer>(found);
        }
        post(found, element_);
        return true;
    } catch (const std::exception& error) {
        failed_ = true;
        GST_ELEMENT_ERROR(element_, LIBRARY, FAILED, ("%s", error.what()), (nullptr));
        return false;
    }
}

std::shared_ptr<const Answer> Filter::newest() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return newest_;
}

void Filter::forget() {
    const std::lock_guard<std::mutex> lock(mutex_);
    newest_.reset();
    ++flushes_;
}

}  // namespace clipedge::gst
