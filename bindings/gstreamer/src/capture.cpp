#include "capture.hpp"

#include <cstring>
#include <stdexcept>
#include <string>

namespace clipedge::gst {

namespace {

clipedge_format format_of(const GstVideoInfo& info) {
    switch (GST_VIDEO_INFO_FORMAT(&info)) {
        case GST_VIDEO_FORMAT_RGB: return CLIPEDGE_RGB8;
        case GST_VIDEO_FORMAT_BGR: return CLIPEDGE_BGR8;
        case GST_VIDEO_FORMAT_RGBA:
        case GST_VIDEO_FORMAT_RGBx: return CLIPEDGE_RGBA8;
        case GST_VIDEO_FORMAT_BGRA:
        case GST_VIDEO_FORMAT_BGRx: return CLIPEDGE_BGRA8;
        case GST_VIDEO_FORMAT_GRAY8: return CLIPEDGE_GRAY8;
        case GST_VIDEO_FORMAT_NV12: return CLIPEDGE_NV12;
        case GST_VIDEO_FORMAT_I420: return CLIPEDGE_I420;
        case GST_VIDEO_FORMAT_YUY2: return CLIPEDGE_YUYV;
        case GST_VIDEO_FORMAT_UYVY: return CLIPEDGE_UYVY;
        default: throw std::invalid_argument("the format is none of " CLIPEDGE_GST_FORMATS ": put videoconvert before");
    }
}

std::int32_t matrix_of(const GstVideoInfo& info) {
    switch (info.colorimetry.matrix) {
        case GST_VIDEO_COLOR_MATRIX_BT601: return CLIPEDGE_BT601;
        case GST_VIDEO_COLOR_MATRIX_BT709: return CLIPEDGE_BT709;
        case GST_VIDEO_COLOR_MATRIX_UNKNOWN: return 0;
        default: break;
    }
    gchar* name = gst_video_colorimetry_to_string(&info.colorimetry);
    const std::string found = name ? name : "unknown";
    g_free(name);
    throw std::invalid_argument("colorimetry is " + found +
                                ", expected a matrix of bt601 or bt709: put before "
                                "videoconvert ! video/x-raw,colorimetry=bt709");
}

std::int32_t range_of(const GstVideoInfo& info) {
    switch (info.colorimetry.range) {
        case GST_VIDEO_COLOR_RANGE_0_255: return CLIPEDGE_FULL;
        case GST_VIDEO_COLOR_RANGE_16_235: return CLIPEDGE_LIMITED;
        default: return 0;
    }
}

struct Rows {
    std::size_t bytes;  // of each, without padding
    std::size_t count;
};

// As clipedge.h has them.
Rows rows_of(const clipedge_image& image, int plane) {
    const auto width = static_cast<std::size_t>(image.width);
    const auto height = static_cast<std::size_t>(image.height);
    const std::size_t half_width = (width + 1) / 2;
    const std::size_t half_height = (height + 1) / 2;
    switch (image.format) {
        case CLIPEDGE_RGB8:
        case CLIPEDGE_BGR8: return {3 * width, height};
        case CLIPEDGE_RGBA8:
        case CLIPEDGE_BGRA8: return {4 * width, height};
        case CLIPEDGE_YUYV:
        case CLIPEDGE_UYVY: return {4 * half_width, height};
        case CLIPEDGE_NV12: return plane == 0 ? Rows{width, height} : Rows{2 * half_width, half_height};
        case CLIPEDGE_I420: return plane == 0 ? Rows{width, height} : Rows{half_width, half_height};
        default: return {width, height};
    }
}

// Readable while it lives.
class Mapped {
public:
    Mapped(const GstVideoInfo& info, GstBuffer* buffer) {
        const auto flags = static_cast<GstMapFlags>(GST_MAP_READ | GST_VIDEO_FRAME_MAP_FLAG_NO_REF);
        if (!gst_video_frame_map(&frame_, &info, buffer, flags)) {
            throw std::runtime_error("a buffer cannot be read as the frame that its caps describe");
        }
    }
    ~Mapped() { gst_video_frame_unmap(&frame_); }
    Mapped(const Mapped&) = delete;
    Mapped& operator=(const Mapped&) = delete;

    const std::uint8_t* row(int plane, std::size_t number) const {
        const auto* data = static_cast<const std::uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(&frame_, plane));
        return data + static_cast<std::ptrdiff_t>(number) * GST_VIDEO_FRAME_PLANE_STRIDE(&frame_, plane);
    }

private:
    GstVideoFrame frame_;
};

}  // namespace

clipedge_image described(const GstVideoInfo& info) {
    clipedge_image image = CLIPEDGE_IMAGE;
    image.width = GST_VIDEO_INFO_WIDTH(&info);
    image.height = GST_VIDEO_INFO_HEIGHT(&info);
    image.format = format_of(info);
    if (GST_VIDEO_INFO_IS_YUV(&info)) {
        image.matrix = matrix_of(info);
        image.range = range_of(info);
    }
    return image;
}

void capture(GstBuffer* buffer, const GstVideoInfo& info, const clipedge_image& description, Frame& frame) {
    const int planes = static_cast<int>(GST_VIDEO_INFO_N_PLANES(&info));
    std::size_t size = 0;
    for (int plane = 0; plane < planes; ++plane) {
        const Rows rows = rows_of(description, plane);
        size += rows.bytes * rows.count;
    }
    frame.pixels.resize(size);
    frame.image = description;
    const Mapped mapped(info, buffer);
    std::uint8_t* to = frame.pixels.data();
    for (int plane = 0; plane < planes; ++plane) {
        const Rows rows = rows_of(description, plane);
        frame.image.planes[plane] = to;
        frame.image.strides[plane] = rows.bytes;
        for (std::size_t row = 0; row < rows.count; ++row, to += rows.bytes) {
            std::memcpy(to, mapped.row(plane, row), rows.bytes);
        }
    }
}

Moment moment_of(GstBuffer* buffer, const GstSegment& segment) {
    Moment moment;
    moment.timestamp = GST_BUFFER_PTS(buffer);
    moment.duration = GST_BUFFER_DURATION(buffer);
    if (segment.format == GST_FORMAT_TIME) {
        moment.stream_time = gst_segment_to_stream_time(&segment, GST_FORMAT_TIME, moment.timestamp);
        moment.running_time = gst_segment_to_running_time(&segment, GST_FORMAT_TIME, moment.timestamp);
    }
    return moment;
}

}  // namespace clipedge::gst
