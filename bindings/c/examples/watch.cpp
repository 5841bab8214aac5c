// Labels that appear in raw BGR frames on standard input and leave:  watch BUNDLE BANK WIDTH HEIGHT RATE
//     ffmpeg -i rtsp://camera/stream -r 10 -pix_fmt bgr24 -f rawvideo - | watch BUNDLE BANK 640 480 10
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "clipedge/stream.hpp"

namespace {

void tell(clipedge::Stream& stream) {
    while (const auto event = stream.next(0)) {
        const char* const what = event->kind == CLIPEDGE_LEFT ? "left" : "appeared";
        std::printf("%8.2f s  %s %s\n", event->since, event->label, what);
        std::fflush(stdout);
    }
}

void watch(clipedge::Stream& stream, int width, int height, double rate) {
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
    for (double number = 0; std::fread(pixels.data(), 1, pixels.size(), stdin) == pixels.size(); ++number) {
        stream.push(clipedge::image(pixels.data(), width, height, CLIPEDGE_BGR8), number / rate);
        tell(stream);
    }
    stream.close();
    tell(stream);
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 6) {
        std::fprintf(stderr, "usage: %s BUNDLE BANK WIDTH HEIGHT RATE\n", arguments[0]);
        return 2;
    }
    try {
        clipedge_options engine = clipedge::options();
        engine.sleeping = 1;  // between frames the engine's threads leave the cores free
        const clipedge::Model model(arguments[1], engine);
        const clipedge::Bank bank(model, arguments[2]);
        clipedge_stream_options rule = clipedge::stream_options();
        rule.enter_seconds = 0.2;
        clipedge::Stream stream(model, bank, rule);
        watch(stream, std::stoi(arguments[3]), std::stoi(arguments[4]), std::stod(arguments[5]));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
