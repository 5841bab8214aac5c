// What the element does, apart from being a GObject: frames are copied for a thread that classifies them, and pass.
#pragma once

#include <gst/video/video.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "classifier.hpp"
#include "pace.hpp"
#include "settings.hpp"
#include "worker.hpp"

namespace clipedge::gst {

class Filter {
public:
    // `element` is whose messages the answers and errors are.
    explicit Filter(GstElement* element) : element_(element) {}

    // Loads the bundle. Throws as Classifier does.
    void start(const Loading& loading);

    // Returns when the thread has ended: when the model is done with the frame that it has.
    void stop();

    // Throws as described() does.
    void set_format(const GstVideoInfo& info);

    // Attaches the newest answer that there is, and offers the frame to the model if it is due. Never waits for the
    // model. False: the model has failed, and an error was posted. Throws as capture() does.
    bool pass(GstBuffer* buffer, const GstSegment& segment);

    // Waits for the answer to the last frame that was offered. False: not within the bound.
    bool drain();

    void flush_start();
    void flush_stop();

    Asking asking() const;
    void set_asking(const Asking& asking);

private:
    bool answer(const Frame& frame);
    std::shared_ptr<const Answer> newest() const;
    void forget();

    GstElement* const element_;
    std::unique_ptr<Classifier> classifier_;
    GstVideoInfo info_{};
    clipedge_image description_ = CLIPEDGE_IMAGE;
    Pace pace_;
    Frame frame_;  // to be filled
    std::atomic<bool> failed_{false};

    mutable std::mutex mutex_;  // of what follows
    Asking asking_;
    std::shared_ptr<const Answer> newest_;
    std::uint64_t flushes_ = 0;

    Worker worker_;  // the last member, and so the first to go
};

}  // namespace clipedge::gst
