// What GStreamer loads.
#include "answer.hpp"
#include "element.hpp"

static gboolean plugin_init(GstPlugin* plugin) {
    clipedge::gst::register_metadata();
    return GST_ELEMENT_REGISTER(clipedge, plugin);
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, clipedge, "CLIP on devices", plugin_init, PACKAGE_VERSION,
                  "Apache 2.0", PACKAGE, PACKAGE)
