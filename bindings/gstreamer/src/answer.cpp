#include "answer.hpp"

namespace clipedge::gst {

namespace {

constexpr const char* name = "clipedge";

template <typename Set>
void append(GValue* array, GType type, const Set& set) {
    GValue value = G_VALUE_INIT;
    g_value_init(&value, type);
    set(&value);
    gst_value_array_append_and_take_value(array, &value);
}

void write(const Answer& answer, GstStructure* structure) {
    GValue labels = G_VALUE_INIT;
    GValue scores = G_VALUE_INIT;
    g_value_init(&labels, GST_TYPE_ARRAY);
    g_value_init(&scores, GST_TYPE_ARRAY);
    for (const Label& label : answer.labels) {
        append(&labels, G_TYPE_STRING, [&](GValue* value) { g_value_set_string(value, label.name.c_str()); });
        append(&scores, G_TYPE_DOUBLE, [&](GValue* value) { g_value_set_double(value, double{label.probability}); });
    }
    const Moment& moment = answer.moment;
    gst_structure_set(structure, "timestamp", G_TYPE_UINT64, moment.timestamp, "stream-time", G_TYPE_UINT64,
                      moment.stream_time, "running-time", G_TYPE_UINT64, moment.running_time, "duration", G_TYPE_UINT64,
                      moment.duration, nullptr);
    gst_structure_take_value(structure, "labels", &labels);
    gst_structure_take_value(structure, "scores", &scores);
}

}  // namespace

void register_metadata() {
    const gchar* no_tags[] = {nullptr};  // what is in the picture stays so when it is scaled or converted
    gst_meta_register_custom(name, no_tags, nullptr, nullptr, nullptr);
}

void attach(const Answer& answer, GstBuffer* buffer) {
    write(answer, gst_custom_meta_get_structure(gst_buffer_add_custom_meta(buffer, name)));
}

void post(const Answer& answer, GstElement* element) {
    GstStructure* structure = gst_structure_new_empty(name);
    write(answer, structure);
    gst_element_post_message(element, gst_message_new_element(GST_OBJECT_CAST(element), structure));
}

}  // namespace clipedge::gst
