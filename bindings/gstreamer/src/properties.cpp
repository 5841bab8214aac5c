#include "properties.hpp"

#include "clipedge/clipedge.h"

namespace clipedge::gst {

namespace {

enum Number : guint { bundle = 1, bank, variant, provider, device, threads, sleeping, top_k, threshold, interval };

constexpr auto readable = static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS);
constexpr auto when_ready = static_cast<GParamFlags>(readable | GST_PARAM_MUTABLE_READY);
constexpr auto any_time = static_cast<GParamFlags>(readable | GST_PARAM_MUTABLE_PLAYING);

GType provider_type() {
    static const GEnumValue values[] = {{CLIPEDGE_PROVIDER_CPU, "ONNX Runtime on the processor", "cpu"},
                                        {CLIPEDGE_PROVIDER_CUDA, "ONNX Runtime on an NVIDIA GPU", "cuda"},
                                        {CLIPEDGE_PROVIDER_TENSORRT, "TensorRT on an NVIDIA GPU", "tensorrt"},
                                        {0, nullptr, nullptr}};
    static const GType type = g_enum_register_static("GstClipedgeProvider", values);
    return type;
}

std::string text_of(const GValue* value) {
    const gchar* text = g_value_get_string(value);
    return text ? text : "";
}

void install_loading(GObjectClass* object_class, const Loading& defaults) {
    const auto add = [&](Number number, GParamSpec* spec) {
        g_object_class_install_property(object_class, number, spec);
    };
    add(bundle, g_param_spec_string("bundle", "Bundle", "Folder that `clipedge export` wrote", nullptr, when_ready));
    add(bank, g_param_spec_string("bank", "Prompt bank",
                                  "Labels to choose from: the name of a prompt bank in the bundle, or a path with a "
                                  "slash",
                                  defaults.bank.c_str(), when_ready));
    add(variant, g_param_spec_string("variant", "Variant",
                                     "Such as int8.x86; if not set, the bundle's variant that suits the processor",
                                     nullptr, when_ready));
    add(provider, g_param_spec_enum("provider", "Provider", "Engine that runs the model", provider_type(),
                                    defaults.provider, when_ready));
    add(device, g_param_spec_int("device", "Device", "Which GPU", 0, G_MAXINT, defaults.device, when_ready));
    add(threads, g_param_spec_int("threads", "Threads", "Processor threads of the engine; 0: one for each core", 0,
                                  G_MAXINT, defaults.threads, when_ready));
    add(sleeping, g_param_spec_boolean("sleeping", "Sleeping",
                                       "Let the engine's threads sleep between frames: false answers a little sooner "
                                       "and keeps the cores busy",
                                       defaults.sleeping, when_ready));
}

void install_asking(GObjectClass* object_class, const Asking& defaults) {
    const auto add = [&](Number number, GParamSpec* spec) {
        g_object_class_install_property(object_class, number, spec);
    };
    add(top_k, g_param_spec_uint("top-k", "Top k", "Labels to tell for each answer, at most", 1, G_MAXUINT,
                                 static_cast<guint>(defaults.top_k), any_time));
    add(threshold, g_param_spec_float("threshold", "Threshold", "Labels of a smaller probability are not told", 0, 1,
                                      defaults.threshold, any_time));
    add(interval, g_param_spec_uint64("interval", "Interval",
                                      "Time between frames to classify, at least (in nanoseconds of the stream); 0: as "
                                      "many as the model can",
                                      0, G_MAXUINT64, defaults.interval, any_time));
}

}  // namespace

void install_properties(GObjectClass* object_class) {
    install_loading(object_class, Loading{});
    install_asking(object_class, Asking{});
}

bool set_property(guint number, const GValue* value, Loading& loading, Asking& asking) {
    switch (number) {
        case bundle: loading.bundle = text_of(value); return true;
        case bank: loading.bank = text_of(value); return true;
        case variant: loading.variant = text_of(value); return true;
        case provider: loading.provider = g_value_get_enum(value); return true;
        case device: loading.device = g_value_get_int(value); return true;
        case threads: loading.threads = g_value_get_int(value); return true;
        case sleeping: loading.sleeping = g_value_get_boolean(value) != FALSE; return true;
        case top_k: asking.top_k = g_value_get_uint(value); return true;
        case threshold: asking.threshold = g_value_get_float(value); return true;
        case interval: asking.interval = g_value_get_uint64(value); return true;
        default: return false;
    }
}

bool get_property(guint number, GValue* value, const Loading& loading, const Asking& asking) {
    switch (number) {
        case bundle: g_value_set_string(value, loading.bundle.c_str()); return true;
        case bank: g_value_set_string(value, loading.bank.c_str()); return true;
        case variant: g_value_set_string(value, loading.variant.c_str()); return true;
        case provider: g_value_set_enum(value, loading.provider); return true;
        case device: g_value_set_int(value, loading.device); return true;
        case threads: g_value_set_int(value, loading.threads); return true;
        case sleeping: g_value_set_boolean(value, loading.sleeping); return true;
        case top_k: g_value_set_uint(value, static_cast<guint>(asking.top_k)); return true;
        case threshold: g_value_set_float(value, asking.threshold); return true;
        case interval: g_value_set_uint64(value, asking.interval); return true;
        default: return false;
    }
}

}  // namespace clipedge::gst
