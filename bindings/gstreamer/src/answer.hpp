// An answer, as an element message and as metadata of a buffer. Both are a GstStructure "clipedge":
//
//     timestamp, stream-time, running-time, duration    guint64: nanoseconds, of the frame that was classified
//     labels                                            GstValueArray of strings, the most probable first
//     scores                                            GstValueArray of doubles: their probabilities
#pragma once

#include <gst/gst.h>

#include <string>
#include <vector>

#include "frame.hpp"

namespace clipedge::gst {

struct Label {
    std::string name;
    float probability;
};

struct Answer {
    Moment moment;
    std::vector<Label> labels;
};

// Has GStreamer know the metadata. Once in a process.
void register_metadata();

// The buffer has to be writable.
void attach(const Answer& answer, GstBuffer* buffer);

// On the element's bus.
void post(const Answer& answer, GstElement* element);

}  // namespace clipedge::gst
