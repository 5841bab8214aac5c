// The element's worker by itself, for ThreadSanitizer, which does not understand GLib's locks. Prints "ok".
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <vector>

#include "pace.hpp"
#include "worker.hpp"

using clipedge::gst::Frame;
using clipedge::gst::Pace;
using clipedge::gst::Worker;
using std::chrono::milliseconds;
using std::chrono::minutes;

namespace {

void expect(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "expected that %s\n", what);
    std::exit(1);
}

void offer(Worker& worker, Frame& frame, std::uint64_t number) {
    frame.moment.timestamp = number;
    frame.pixels.assign(100, static_cast<std::uint8_t>(number));
    worker.offer(frame);
}

// The model is busy with frame 0 until `opened`; started, it says so by `entered`.
struct Busy {
    std::promise<void> entered, opened;
    std::vector<std::uint64_t> worked_on;
    Worker worker;
    Frame frame;

    Busy() {
        worker.start([this](const Frame& given) {
            worked_on.push_back(given.moment.timestamp);
            if (worked_on.size() == 1) {
                entered.set_value();
                opened.get_future().wait();
            }
            return true;
        });
        offer(worker, frame, 0);
        entered.get_future().wait();
    }
};

void only_the_newest_waits() {
    Busy busy;
    for (std::uint64_t number = 1; number < 100; ++number) offer(busy.worker, busy.frame, number);
    expect(!busy.worker.drain(milliseconds(1)), "a drain ends at its bound");
    busy.opened.set_value();
    expect(busy.worker.drain(minutes(1)), "what waits is worked on");
    busy.worker.stop();
    expect(busy.worked_on == std::vector<std::uint64_t>{0, 99}, "98 frames were replaced");
    offer(busy.worker, busy.frame, 100);
    expect(busy.worker.drain(minutes(1)), "there is nothing to wait for when it has stopped");
}

void a_flush_ends_a_drain_and_forgets() {
    Busy busy;
    offer(busy.worker, busy.frame, 1);
    std::future<bool> drained = std::async(std::launch::async, [&] { return busy.worker.drain(minutes(1)); });
    busy.worker.flush_start();
    expect(drained.get(), "a drain returns while the model is busy");
    offer(busy.worker, busy.frame, 2);
    busy.worker.flush_stop();
    offer(busy.worker, busy.frame, 3);
    busy.opened.set_value();
    expect(busy.worker.drain(minutes(1)), "what came after the flush is worked on");
    busy.worker.stop();
    expect(busy.worked_on == std::vector<std::uint64_t>{0, 3}, "what came before and during the flush is forgotten");
}

void stopping_forgets_what_waits() {
    Busy busy;
    offer(busy.worker, busy.frame, 1);
    std::future<void> stopped = std::async(std::launch::async, [&] { busy.worker.stop(); });
    while (!busy.worker.drain(milliseconds(1))) {
    }  // until it is stopping
    expect(stopped.wait_for(milliseconds(20)) == std::future_status::timeout, "the work at hand is waited for");
    busy.opened.set_value();
    stopped.get();
    expect(busy.worked_on == std::vector<std::uint64_t>{0}, "the frame that waited is forgotten");
}

void work_that_fails_is_the_last() {
    std::atomic<int> calls{0};
    Worker worker;
    Frame frame;
    worker.start([&](const Frame&) { return ++calls < 2; });
    for (std::uint64_t number = 0; number < 5; ++number) {
        offer(worker, frame, number);
        expect(worker.drain(minutes(1)), "a drain returns when the work has ended");
    }
    expect(calls == 2, "nothing is worked on after a failure");
    worker.stop();
    worker.start([&](const Frame&) { return ++calls < 4; });
    offer(worker, frame, 9);
    expect(worker.drain(minutes(1)) && calls == 3, "it can be started again");
}

void frames_come_whole() {
    Worker worker;
    Frame frame;
    std::uint64_t last = 0;
    worker.start([&](const Frame& given) {
        for (const std::uint8_t pixel : given.pixels) {
            expect(pixel == static_cast<std::uint8_t>(given.moment.timestamp), "no frame is changed at work");
        }
        expect(given.moment.timestamp >= last, "frames come in their order");
        last = given.moment.timestamp;
        return true;
    });
    for (std::uint64_t number = 0; number < 20000; ++number) offer(worker, frame, number);
    expect(worker.drain(minutes(1)), "the last one is worked on");
    worker.stop();
    expect(last == 19999, "the last one is never lost");
}

int taken(std::uint64_t period, std::uint64_t interval, int frames) {
    Pace pace;
    int due = 0;
    for (int i = 0; i < frames; ++i) due += pace.is_due(static_cast<std::uint64_t>(i) * period, interval) ? 1 : 0;
    return due;
}

void frames_are_due_once_in_an_interval() {
    expect(taken(33'333'333, 100'000'000, 300) == 100, "10 of 30 a second are, whatever rounding does");
    expect(taken(40'000'000, 100'000'000, 250) == 100, "10 of 25 a second are, although none falls on the grid");
    expect(taken(200'000'000, 100'000'000, 10) == 10, "all are that come more slowly");
    expect(taken(1, 0, 10) == 10, "all are without an interval");
    Pace pace;
    expect(pace.is_due(5'000, 100) && !pace.is_due(5'099, 100) && pace.is_due(5'100, 100), "the first is at any time");
    expect(pace.is_due(9'000, 100) && !pace.is_due(9'050, 100), "a gap is not made up for");
    expect(pace.is_due(clipedge::gst::no_time, 100), "a frame without a time is");
    expect(pace.is_due(10'000, 5'000) && pace.is_due(10'100, 100), "an interval that became shorter counts at once");
    pace.restart();
    expect(pace.is_due(0, 100), "the first after a restart is");
}

}  // namespace

int main() {
    only_the_newest_waits();
    a_flush_ends_a_drain_and_forgets();
    stopping_forgets_what_waits();
    work_that_fails_is_the_last();
    frames_come_whole();
    frames_are_due_once_in_an_interval();
    std::puts("ok");
    return 0;
}
