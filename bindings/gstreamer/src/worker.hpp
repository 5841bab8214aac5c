// A thread for frames that come faster than they are worked on: it gets the newest one, and there is never a queue.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "frame.hpp"

namespace clipedge::gst {

// Three frames go round: the one that is filled, the one that waits, the one that is worked on. After the first few no
// memory is asked for.
class Worker {
public:
    using Work = std::function<bool(const Frame&)>;  // false: there is no point in going on

    Worker() = default;
    ~Worker() { stop(); }
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    void start(Work work);

    // Forgets what waits and joins the thread, when the work at hand is done.
    void stop();

    // The frame takes the place of one that waits; `frame` is an older one afterwards, to be filled again. Never waits
    // for the work.
    void offer(Frame& frame);

    // Waits until no frame waits or is worked on. False: that took longer than `bound`. During a flush, and when the
    // work has ended, there is nothing to wait for.
    bool drain(std::chrono::milliseconds bound);

    // Between the two no frame is taken, and drain() returns.
    void flush_start();
    void flush_stop();

private:
    void run();

    std::mutex mutex_;
    std::condition_variable changed_;
    Work work_;
    std::thread thread_;
    Frame waiting_;
    Frame working_;
    bool waits_ = false;
    bool works_ = false;
    bool flushing_ = false;
    bool stopping_ = false;
};

}  // namespace clipedge::gst
