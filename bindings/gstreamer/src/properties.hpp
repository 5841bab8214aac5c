// The properties of the element, as GObject knows them.
#pragma once

#include <gst/gst.h>

#include "settings.hpp"

namespace clipedge::gst {

void install_properties(GObjectClass* object_class);

// A property's value into what it belongs to, or out of it. False: neither has it.
bool set_property(guint number, const GValue* value, Loading& loading, Asking& asking);
bool get_property(guint number, GValue* value, const Loading& loading, const Asking& asking);

}  // namespace clipedge::gst
