#include "element.hpp"

#include <exception>

#include "capture.hpp"
#include "filter.hpp"
#include "properties.hpp"

using clipedge::gst::Asking;
using clipedge::gst::Filter;
using clipedge::gst::Loading;

struct _GstClipedge {
    GstBaseTransform parent;
    Filter* filter;
    Loading* loading;  // under the object's lock
};

G_DEFINE_TYPE(GstClipedge, gst_clipedge, GST_TYPE_BASE_TRANSFORM)
GST_ELEMENT_REGISTER_DEFINE(clipedge, "clipedge", GST_RANK_NONE, gst_clipedge_get_type())

#define CAPS GST_VIDEO_CAPS_MAKE(CLIPEDGE_GST_FORMATS)
static GstStaticPadTemplate sink_template =
    GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS(CAPS));
static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(CAPS));

static void gst_clipedge_init(GstClipedge* self) {
    self->filter = new Filter(GST_ELEMENT_CAST(self));
    self->loading = new Loading;
}

static void finalize(GObject* object) {
    delete GST_CLIPEDGE(object)->filter;
    delete GST_CLIPEDGE(object)->loading;
    G_OBJECT_CLASS(gst_clipedge_parent_class)->finalize(object);
}

static void set_property(GObject* object, guint number, const GValue* value, GParamSpec* spec) {
    GstClipedge* self = GST_CLIPEDGE(object);
    GST_OBJECT_LOCK(self);
    Asking asking = self->filter->asking();
    const bool known = clipedge::gst::set_property(number, value, *self->loading, asking);
    self->filter->set_asking(asking);
    GST_OBJECT_UNLOCK(self);
    if (!known) G_OBJECT_WARN_INVALID_PROPERTY_ID(object, number, spec);
}

static void get_property(GObject* object, guint number, GValue* value, GParamSpec* spec) {
    GstClipedge* self = GST_CLIPEDGE(object);
    GST_OBJECT_LOCK(self);
    const bool known = clipedge::gst::get_property(number, value, *self->loading, self->filter->asking());
    GST_OBJECT_UNLOCK(self);
    if (!known) G_OBJECT_WARN_INVALID_PROPERTY_ID(object, number, spec);
}

static gboolean start(GstBaseTransform* base) {
    GstClipedge* self = GST_CLIPEDGE(base);
    GST_OBJECT_LOCK(self);
    const Loading loading = *self->loading;
    GST_OBJECT_UNLOCK(self);
    try {
        self->filter->start(loading);
        return TRUE;
    } catch (const std::exception& error) {
        GST_ELEMENT_ERROR(self, RESOURCE, OPEN_READ, ("%s", error.what()), (nullptr));
        return FALSE;
    }
}

static gboolean stop(GstBaseTransform* base) {
    GST_CLIPEDGE(base)->filter->stop();
    return TRUE;
}

static gboolean set_caps(GstBaseTransform* base, GstCaps* caps, GstCaps*) {
    GstVideoInfo info;
    if (!gst_video_info_from_caps(&info, caps)) return FALSE;
    try {
        GST_CLIPEDGE(base)->filter->set_format(info);
        return TRUE;
    } catch (const std::exception& error) {
        GST_ELEMENT_ERROR(base, STREAM, FORMAT, ("%s", error.what()), (nullptr));
        return FALSE;
    }
}

// GstBaseTransform has made the buffer writable, which copies no pixels.
static GstFlowReturn transform_ip(GstBaseTransform* base, GstBuffer* buffer) {
    try {
        return GST_CLIPEDGE(base)->filter->pass(buffer, base->segment) ? GST_FLOW_OK : GST_FLOW_ERROR;
    } catch (const std::exception& error) {
        GST_ELEMENT_ERROR(base, STREAM, FAILED, ("%s", error.what()), (nullptr));
        return GST_FLOW_ERROR;
    }
}

static gboolean sink_event(GstBaseTransform* base, GstEvent* event) {
    Filter* filter = GST_CLIPEDGE(base)->filter;
    switch (GST_EVENT_TYPE(event)) {
        case GST_EVENT_FLUSH_START: filter->flush_start(); break;
        case GST_EVENT_FLUSH_STOP: filter->flush_stop(); break;
        case GST_EVENT_EOS:
            if (!filter->drain()) {
                GST_ELEMENT_WARNING(base, RESOURCE, BUSY,
                                    ("the stream ends before the model has answered its last frame"), (nullptr));
            }
            break;
        default: break;
    }
    return GST_BASE_TRANSFORM_CLASS(gst_clipedge_parent_class)->sink_event(base, event);
}

static GstStateChangeReturn change_state(GstElement* element, GstStateChange transition) {
    // The end of a stream may be waiting for an answer, and pads are deactivated only when it has passed.
    if (transition == GST_STATE_CHANGE_PAUSED_TO_READY) GST_CLIPEDGE(element)->filter->flush_start();
    return GST_ELEMENT_CLASS(gst_clipedge_parent_class)->change_state(element, transition);
}

static void gst_clipedge_class_init(GstClipedgeClass* klass) {
    GObjectClass* object_class = G_OBJECT_CLASS(klass);
    object_class->set_property = set_property;
    object_class->get_property = get_property;
    object_class->finalize = finalize;
    clipedge::gst::install_properties(object_class);

    GstElementClass* element_class = GST_ELEMENT_CLASS(klass);
    element_class->change_state = change_state;
    gst_element_class_add_static_pad_template(element_class, &sink_template);
    gst_element_class_add_static_pad_template(element_class, &src_template);
    gst_element_class_set_static_metadata(element_class, "ClipEdge", "Filter/Analyzer/Video",
                                          "Says what is in a video by a CLIP model, in messages and metadata",
                                          "the ClipEdge developers");

    GstBaseTransformClass* base_class = GST_BASE_TRANSFORM_CLASS(klass);
    base_class->start = start;
    base_class->stop = stop;
    base_class->set_caps = set_caps;
    base_class->sink_event = sink_event;
    base_class->transform_ip = transform_ip;
}
