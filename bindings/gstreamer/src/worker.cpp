#include "worker.hpp"

#include <utility>

namespace clipedge::gst {

void Worker::start(Work work) {
    work_ = std::move(work);
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        waits_ = works_ = flushing_ = stopping_ = false;
    }
    thread_ = std::thread(&Worker::run, this);
}

void Worker::stop() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stopping_ = true;
        waits_ = false;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

void Worker::offer(Frame& frame) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (flushing_ || stopping_) return;
        std::swap(waiting_, frame);
        waits_ = true;
    }
    changed_.notify_all();
}

bool Worker::drain(std::chrono::milliseconds bound) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, bound, [&] { return flushing_ || stopping_ || (!waits_ && !works_); });
}

void Worker::flush_start() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        flushing_ = true;
        waits_ = false;
    }
    changed_.notify_all();
}

void Worker::flush_stop() {
    const std::lock_guard<std::mutex> lock(mutex_);
    flushing_ = false;
}

void Worker::run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
        changed_.wait(lock, [&] { return stopping_ || waits_; });
        if (stopping_) return;
        std::swap(waiting_, working_);
        waits_ = false;
        works_ = true;
        lock.unlock();
        const bool goes_on = work_(working_);
        lock.lock();
        works_ = false;
        if (!goes_on) stopping_ = true;
        changed_.notify_all();
    }
}

}  // namespace clipedge::gst
