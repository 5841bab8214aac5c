// Probabilities over time become events (clipedge/camera/presence.py, whose formulas these are). No threads and no clock
// here: time is that of the frames.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "bank.hpp"

namespace clipedge {

// `timestamp` is that of the frame that settled it, `since` of the one that passed the threshold; `probability` is the
// smoothed one at `timestamp`.
struct Event {
    enum class Kind : std::int32_t { none, appeared, left, ended };
    Kind kind = Kind::none;
    std::size_t label = 0;
    double timestamp = 0;
    double since = 0;
    double probability = 0;
};

// When a label appeared, and when it left; `enter` and `leave` have a probability for each label.
struct EventRule {
    std::vector<double> enter;
    std::vector<double> leave;
    double enter_seconds;
    double leave_seconds;
    double time_constant;
};

// The rule for a bank's labels. A threshold may be missing, one number for all labels, or one for each: without `enter`
// it is the bank's fitted thresholds, or 0.5 if it has none; without `leave`, 0.7 of `enter`. Raises Error
// (CLIPEDGE_USAGE) where clipedge.EventRule raises UsageError.
EventRule rule_for(const Bank& bank, EventRule wanted);

// What is known at `timestamp`; every vector has one number a label, or none before the first frame. `observed` is the
// last answer, `since` is from when on a label has been beyond the threshold that changes its `present`, or NaN.
struct Presence {
    double timestamp = 0;
    std::vector<double> observed;
    std::vector<double> smoothed;
    std::vector<std::uint8_t> present;
    std::vector<double> since;
};

// One more frame: changes what is known, and appends the events that it settled, in the order of the labels.
// `probabilities` are the answer to the frame; nullptr for one that shows what the last one did, which the first cannot.
void observe(Presence& known, double timestamp, const std::vector<double>* probabilities, const EventRule& rule,
             std::deque<Event>& events);

// Raises Error (CLIPEDGE_USAGE) unless `timestamp` is finite and later than `last`.
void check_later(double timestamp, double last);

}  // namespace clipedge
