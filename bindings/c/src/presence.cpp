#include "presence.hpp"

#include <cmath>
#include <iomanip>
#include <limits>
#include <utility>

#include "classify.hpp"
#include "errors.hpp"

namespace clipedge {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double leave_share = 0.7;   // of `enter`, where `leave` is not given
constexpr double microsecond = 1e-6;  // differences of timestamps are not exact: 0.7 - 0.4 is less than 0.3

std::vector<double> one_each(const char* name, std::vector<double> values, std::size_t labels) {
    if (values.size() == 1) values.assign(labels, values.front());
    if (values.size() != labels) {
        fail(CLIPEDGE_USAGE, name, ": expected one threshold, or ", labels, ", one a label, found ", values.size());
    }
    for (const double value : values) {
        if (!(value >= 0 && value <= 1)) {
            fail(CLIPEDGE_USAGE, name, ": expected a probability from 0 to 1, found ", value);
        }
    }
    return values;
}

void check_seconds(const char* name, double seconds) {
    if (!(seconds >= 0 && seconds < infinity)) {
        fail(CLIPEDGE_USAGE, name, ": expected seconds, 0 or more, found ", seconds);
    }
}

double weight_of(double seconds, double time_constant) {
    return time_constant == 0 ? 1 : -std::expm1(-seconds / time_constant);
}

// Moves the smoothed probabilities towards the last answer.
void smooth(Presence& known, double timestamp, const EventRule& rule) {
    const double weight = weight_of(timestamp - known.timestamp, rule.time_constant);
    for (std::size_t i = 0; i < known.smoothed.size(); ++i) {
        known.smoothed[i] += weight * (known.observed[i] - known.smoothed[i]);
    }
}

// Whether the label has been beyond its threshold long enough. Keeps since when it has been beyond.
bool is_settled(Presence& known, std::size_t label, const EventRule& rule) {
    const bool present = known.present[label] != 0;
    const double value = known.smoothed[label];
    double& since = known.since[label];
    const bool beyond = present ? value < rule.leave[label] : value >= rule.enter[label];
    since = !beyond ? nan : std::isnan(since) ? known.timestamp : since;
    const double patience = present ? rule.leave_seconds : rule.enter_seconds;
    return known.timestamp - since >= patience - microsecond;  // false for NaN
}

}  // namespace

EventRule rule_for(const Bank& bank, EventRule wanted) {
    const std::size_t labels = bank.labels.size();
    if (wanted.enter.empty() && bank.rule) wanted.enter = bank.rule->thresholds;
    if (wanted.enter.empty()) wanted.enter = {even};
    wanted.enter = one_each("enter", std::move(wanted.enter), labels);
    if (wanted.leave.empty()) {
        for (const double value : wanted.enter) wanted.leave.push_back(leave_share * value);
    }
    wanted.leave = one_each("leave", std::move(wanted.leave), labels);
    for (std::size_t i = 0; i < labels; ++i) {
        if (wanted.leave[i] > wanted.enter[i]) {
            fail(CLIPEDGE_USAGE,
                 "a label leaves at a lower probability than it enters at, or it would flicker: found leave ",
                 wanted.leave[i], " above enter ", wanted.enter[i], " for \"", bank.labels[i], '"');
        }
    }
    check_seconds("enter_seconds", wanted.enter_seconds);
    check_seconds("leave_seconds", wanted.leave_seconds);
    check_seconds("time_constant", wanted.time_constant);
    return wanted;
}

void observe(Presence& known, double timestamp, const std::vector<double>* probabilities, const EventRule& rule,
             std::deque<Event>& events) {
    if (probabilities) known.observed = *probabilities;
    if (known.smoothed.empty()) {
        known.smoothed = known.observed;
        known.present.assign(known.observed.size(), 0);
        known.since.assign(known.observed.size(), nan);
    } else {
        smooth(known, timestamp, rule);
    }
    known.timestamp = timestamp;
    for (std::size_t label = 0; label < known.smoothed.size(); ++label) {
        if (!is_settled(known, label, rule)) continue;
        const Event::Kind kind = known.present[label] ? Event::Kind::left : Event::Kind::appeared;
        events.push_back({kind, label, timestamp, known.since[label], known.smoothed[label]});
        known.present[label] ^= 1;
        known.since[label] = nan;
    }
}

void check_later(double timestamp, double last) {
    if (!(last < timestamp && timestamp < infinity)) {
        fail(CLIPEDGE_USAGE, std::setprecision(17), "timestamps are seconds that grow from frame to frame, found ",
             timestamp, " after ", last, "; a camera whose clock was set back needs a new stream");
    }
}

}  // namespace clipedge
