// The C interface of streams.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "boundary.hpp"
#include "classify.hpp"
#include "clipedge/stream.h"
#include "errors.hpp"
#include "handles.hpp"

using clipedge::check_capacity;
using clipedge::Event;
using clipedge::fail;
using clipedge::give;
using clipedge::given;
using clipedge::guarded;
using clipedge::taken;

static_assert(static_cast<int>(Event::Kind::none) == CLIPEDGE_NO_EVENT);
static_assert(static_cast<int>(Event::Kind::appeared) == CLIPEDGE_APPEARED);
static_assert(static_cast<int>(Event::Kind::left) == CLIPEDGE_LEFT);
static_assert(static_cast<int>(Event::Kind::ended) == CLIPEDGE_ENDED);

namespace {

std::vector<double> thresholds(const double* values, std::size_t count, std::size_t labels, const char* name) {
    if (count == 0) return {};
    if (count != 1 && count != labels) {
        fail(CLIPEDGE_USAGE, name, ": expected one threshold, or ", labels, ", one a label, found ", count);
    }
    return {&given(values, name), values + count};
}

clipedge::EventRule event_rule(const clipedge_stream_options* options, const clipedge::Bank& bank) {
    clipedge_stream_options wanted = CLIPEDGE_STREAM_OPTIONS;
    if (options) wanted = taken(options, "clipedge_stream_options", wanted);
    const std::size_t labels = bank.labels.size();
    return clipedge::rule_for(bank, {thresholds(wanted.enter, wanted.enter_count, labels, "enter"),
                                     thresholds(wanted.leave, wanted.leave_count, labels, "leave"),
                                     wanted.enter_seconds, wanted.leave_seconds, wanted.time_constant});
}

}  // namespace

namespace clipedge {

clipedge_stream* new_stream(Stream::Answer answer, const clipedge_bank& bank, const clipedge_stream_options* options) {
    return new clipedge_stream(bank, std::move(answer), event_rule(options, bank.bank));
}

}  // namespace clipedge

extern "C" {

clipedge_status clipedge_stream_create(const clipedge_model* model, const clipedge_bank* bank,
                                       const clipedge_stream_options* options, clipedge_stream** stream) {
    return guarded([&] {
        given(stream, "stream") = nullptr;
        const clipedge::Model& encoder = given(model, "model").model;
        const clipedge::Bank& inner = given(bank, "bank").bank;
        check_bank(inner, encoder);
        const auto answer = [&encoder, &inner](const clipedge::Image& image) {
            std::vector<float> embedding(encoder.dim());
            encoder.encode_images({image}, embedding.data());
            return clipedge::answer(inner, embedding.data());
        };
        *stream = clipedge::new_stream(answer, *bank, options);
    });
}

void clipedge_stream_free(clipedge_stream* stream) { delete stream; }

clipedge_status clipedge_stream_push(clipedge_stream* stream, const clipedge_image* image, double timestamp,
                                     int32_t wait) {
    return guarded([&] {
        clipedge::Stream& inner = given(stream, "stream").stream;
        if (wait != 0 && wait != 1) fail(CLIPEDGE_USAGE, "wait is 0 or 1, found ", wait);
        inner.push(clipedge::images_of(image, 1).front(), timestamp, wait == 1);
    });
}

clipedge_status clipedge_stream_next(clipedge_stream* stream, double timeout, clipedge_event* event) {
    return guarded([&] {
        clipedge::Stream& inner = given(stream, "stream").stream;
        taken(event, "clipedge_event");  // before an event is taken out that could not be given
        const Event next = inner.next(timeout);
        const bool has_label = next.kind == Event::Kind::appeared || next.kind == Event::Kind::left;
        give(clipedge_event{0, static_cast<std::int32_t>(next.kind), static_cast<std::int32_t>(next.label),
                            has_label ? stream->bank.bank.labels[next.label].c_str() : nullptr, next.timestamp,
                            next.since, next.probability},
             event, "clipedge_event");
    });
}

clipedge_status clipedge_stream_close(clipedge_stream* stream) {
    return guarded([&] { given(stream, "stream").stream.close(); });
}

clipedge_status clipedge_stream_counts(const clipedge_stream* stream, clipedge_counts* counts) {
    return guarded([&] {
        const clipedge::Counts found = given(stream, "stream").stream.counts();
        give(clipedge_counts{0, found.seen, found.unchanged, found.late, found.answered}, counts, "clipedge_counts");
    });
}

clipedge_status clipedge_stream_presence(const clipedge_stream* stream, double* timestamp, double* smoothed,
                                         uint8_t* present, size_t capacity) {
    return guarded([&] {
        clipedge::Presence known = given(stream, "stream").stream.presence();
        const std::size_t labels = stream->bank.bank.labels.size();
        if (smoothed || present) check_capacity(capacity, labels, 1, "smoothed and present");
        if (known.smoothed.empty()) {
            known.timestamp = std::numeric_limits<double>::quiet_NaN();
            known.smoothed.assign(labels, 0);
            known.present.assign(labels, 0);
        }
        if (timestamp) *timestamp = known.timestamp;
        if (smoothed) std::copy(known.smoothed.begin(), known.smoothed.end(), smoothed);
        if (present) std::copy(known.present.begin(), known.present.end(), present);
    });
}

}  // extern "C"
