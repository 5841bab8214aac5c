// Plays a pipeline and tells what came of it:  play [OPTION] PIPELINE
//
// An element of the pipeline is called "sink": frames are looked at where they enter it. A line for each thing seen:
//
//     answer clipedge, ...         a message of the element
//     frame TIMESTAMP OF ROW USE   a buffer that reached the sink, the timestamp in the element's metadata, the stride
//                                  in GstVideoMeta ("-" where there is none), and "held" or "free": whether something
//                                  else holds its memory
//     error TEXT, warning TEXT
//     calls N                      of the model
//     seconds S                    from the first frame at the sink to the end of the stream
//
// --step     a frame goes on from the sink only when it was answered: all of them are
// --slow N   the model's first call returns when N frames have reached the sink
// --seek     as --slow, but what opens the model is a flushing seek to 5 s that has returned
// --stop     as --slow, but what opens the model is that the pipeline is being stopped
// --late MS  each call of the model takes so much longer
// --fail     the model's second call fails
// --twice    play, stop, play again
//
// The model's slowness is this program's own clipedge_classify_images, which the linker finds before the library's.
#include <dlfcn.h>
#include <gst/gst.h>
#include <gst/video/video.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>

#include "clipedge/clipedge.h"

namespace {

constexpr std::chrono::minutes patience{5};  // before a test that hangs is ended

struct Seen {
    std::mutex mutex;
    std::condition_variable changed;
    int frames = 0;
    int answers = 0;
    int calls = 0;
    int needed = 0;  // frames before the model's first call returns
    bool steps = false;
    bool fails = false;
    std::chrono::milliseconds late{0};  // by which the model answers
    std::chrono::steady_clock::time_point began;
} seen;

template <typename Holds>
void wait_until(std::unique_lock<std::mutex>& lock, const Holds& holds, const char* what) {
    if (seen.changed.wait_for(lock, patience, holds)) return;
    std::fprintf(stderr, "waited in vain: %s\n", what);
    std::exit(3);
}

void open_model() {
    const std::lock_guard<std::mutex> lock(seen.mutex);
    seen.needed = 0;
    seen.changed.notify_all();
}

GstPadProbeReturn at_sink(GstPad*, GstPadProbeInfo* info, gpointer) {
    GstBuffer* buffer = GST_PAD_PROBE_INFO_BUFFER(info);
    GstCustomMeta* meta = gst_buffer_get_custom_meta(buffer, "clipedge");
    const GstVideoMeta* video = gst_buffer_get_video_meta(buffer);
    guint64 of = 0;
    const bool answered = meta && gst_structure_get_uint64(gst_custom_meta_get_structure(meta), "timestamp", &of);
    std::unique_lock<std::mutex> lock(seen.mutex);
    std::printf("frame %" G_GUINT64_FORMAT " %s %s %s\n", GST_BUFFER_PTS(buffer),
                answered ? std::to_string(of).c_str() : "-", video ? std::to_string(video->stride[0]).c_str() : "-",
                gst_buffer_is_all_memory_writable(buffer) ? "free" : "held");
    if (seen.frames++ == 0) seen.began = std::chrono::steady_clock::now();
    seen.changed.notify_all();
    if (seen.needed > 0) wait_until(lock, [] { return seen.calls > 0; }, "the model was never asked");
    if (seen.steps) wait_until(lock, [] { return seen.answers >= seen.frames; }, "a frame had no answer");
    return GST_PAD_PROBE_OK;
}

GstBusSyncReply at_bus(GstBus*, GstMessage* message, gpointer) {
    const std::lock_guard<std::mutex> lock(seen.mutex);
    if (gst_message_has_name(message, "clipedge")) {
        gchar* text = gst_structure_to_string(gst_message_get_structure(message));
        std::printf("answer %s\n", text);
        g_free(text);
        ++seen.answers;
        seen.changed.notify_all();
    }
    return GST_BUS_PASS;
}

void print(GstMessage* message, const char* kind, void (*parse)(GstMessage*, GError**, gchar**)) {
    GError* error = nullptr;
    parse(message, &error, nullptr);
    std::printf("%s %s\n", kind, error->message);
    g_error_free(error);
}

// Whether the stream came to its end.
bool wait_for_end(GstElement* pipeline) {
    GstBus* bus = gst_element_get_bus(pipeline);
    const auto kinds = static_cast<GstMessageType>(GST_MESSAGE_EOS | GST_MESSAGE_ERROR | GST_MESSAGE_WARNING);
    bool goes_on = true;
    bool ended = false;
    while (goes_on) {
        GstMessage* message = gst_bus_timed_pop_filtered(bus, GST_CLOCK_TIME_NONE, kinds);
        const GstMessageType type = GST_MESSAGE_TYPE(message);
        if (type == GST_MESSAGE_ERROR) print(message, "error", gst_message_parse_error);
        if (type == GST_MESSAGE_WARNING) print(message, "warning", gst_message_parse_warning);
        ended = type == GST_MESSAGE_EOS;
        goes_on = type == GST_MESSAGE_WARNING;
        gst_message_unref(message);
    }
    gst_object_unref(bus);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - seen.began;
    std::printf("seconds %.3f\n", taken.count());
    return ended;
}

void wait_for_model() {
    std::unique_lock<std::mutex> lock(seen.mutex);
    wait_until(lock, [] { return seen.calls > 0; }, "the model was never asked");
}

GstElement* made(const char* description) {
    GError* error = nullptr;
    GstElement* pipeline = gst_parse_launch(description, &error);
    if (error) {
        std::fprintf(stderr, "%s\n", error->message);
        std::exit(2);
    }
    GstElement* sink = gst_bin_get_by_name(GST_BIN(pipeline), "sink");
    GstPad* pad = gst_element_get_static_pad(sink, "sink");
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, at_sink, nullptr, nullptr);
    gst_object_unref(pad);
    gst_object_unref(sink);
    GstBus* bus = gst_element_get_bus(pipeline);
    gst_bus_set_sync_handler(bus, at_bus, nullptr, nullptr);
    gst_object_unref(bus);
    return pipeline;
}

bool play(GstElement* pipeline, const std::string& option) {
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    bool ended = true;
    if (option == "--seek") {
        wait_for_model();
        const auto flags = static_cast<GstSeekFlags>(GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE);
        if (!gst_element_seek_simple(pipeline, GST_FORMAT_TIME, flags, 5 * GST_SECOND)) std::exit(4);
        GstBus* bus = gst_element_get_bus(pipeline);
        gst_bus_set_flushing(bus, TRUE);  // the stream may have come to its end before
        gst_bus_set_flushing(bus, FALSE);
        gst_object_unref(bus);
        std::puts("sought");
        open_model();
    }
    std::thread opener;
    if (option == "--stop") {
        wait_for_model();
        opener = std::thread([] {
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
            open_model();
        });
    } else {
        ended = wait_for_end(pipeline);
    }
    gst_element_set_state(pipeline, GST_STATE_NULL);
    if (opener.joinable()) opener.join();
    return ended;
}

}  // namespace

extern "C" CLIPEDGE_API clipedge_status clipedge_classify_images(const clipedge_model* model, const clipedge_bank* bank,
                                                                 const clipedge_image* images, size_t count,
                                                                 float* probabilities, size_t capacity) {
    bool fails = false;
    {
        std::unique_lock<std::mutex> lock(seen.mutex);
        ++seen.calls;
        fails = seen.fails && seen.calls == 2;
        seen.changed.notify_all();
        if (seen.calls == 1) {
            wait_until(lock, [] { return seen.frames >= seen.needed; }, "the frames did not come");
        }
    }
    std::this_thread::sleep_for(seen.late);
    static const auto real = reinterpret_cast<decltype(&clipedge_classify_images)>(
        dlsym(RTLD_NEXT, "clipedge_classify_images"));
    return real(model, bank, images, count, probabilities, fails ? 0 : capacity);
}

int main(int count, char** arguments) {
    gst_init(&count, &arguments);
    if (count < 2) return 2;
    const std::string option = count > 2 ? arguments[1] : "";
    seen.steps = option == "--step";
    seen.fails = option == "--fail";
    if (option == "--late") seen.late = std::chrono::milliseconds(std::atoi(arguments[2]));
    if (option == "--slow") seen.needed = std::atoi(arguments[2]);
    if (option == "--seek" || option == "--stop") seen.needed = 1 << 30;
    GstElement* pipeline = made(arguments[count - 1]);
    bool ended = play(pipeline, option);
    if (option == "--twice") ended = play(pipeline, option) && ended;
    gst_object_unref(pipeline);
    std::printf("calls %d\n", seen.calls);
    gst_deinit();
    return ended ? 0 : 1;
}
