// The element as a GObject: its type. All that it does is Filter's.
#pragma once

#include <gst/base/gstbasetransform.h>

G_DECLARE_FINAL_TYPE(GstClipedge, gst_clipedge, GST, CLIPEDGE, GstBaseTransform)

GST_ELEMENT_REGISTER_DECLARE(clipedge)
