// From GStreamer's video frames to libclipedge's.
#pragma once

#include <gst/video/video.h>

#include "frame.hpp"

namespace clipedge::gst {

// The formats that are taken, as caps have them.
#define CLIPEDGE_GST_FORMATS "{ RGB, BGR, RGBA, BGRA, RGBx, BGRx, GRAY8, NV12, I420, YUY2, UYVY }"

// Format, size, colour matrix and range, without memory. Throws std::invalid_argument for what libclipedge does not
// know: colour matrices other than BT.601's and BT.709's.
clipedge_image described(const GstVideoInfo& info);

// Copies a buffer's rows, wherever its GstVideoMeta says that they lie, into frame.pixels, one after the other.
// Throws std::runtime_error where the buffer cannot be read.
void capture(GstBuffer* buffer, const GstVideoInfo& info, const clipedge_image& description, Frame& frame);

// When the buffer is in its stream.
Moment moment_of(GstBuffer* buffer, const GstSegment& segment);

}  // namespace clipedge::gst
