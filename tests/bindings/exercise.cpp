// Goes through all of clipedge.hpp and stream.hpp, for sanitizers and for leaks:  exercise BUNDLE INDEX BROKEN...
// BROKEN are folders that have to be refused. Prints "ok".
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "clipedge/stream.hpp"

namespace {

void expect(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "expected that %s; last error: %s\n", what, clipedge_last_error());
    std::exit(1);
}

template <typename Call>
clipedge_status status_of(const Call& call) {
    try {
        call();
        return CLIPEDGE_OK;
    } catch (const clipedge::Error& error) {
        expect(std::string(error.what()) == clipedge_last_error(), "an exception says what the library said");
        return error.status();
    }
}

std::vector<std::uint8_t> noise(std::size_t size) {
    std::vector<std::uint8_t> bytes(size);
    std::uint32_t state = 1;
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    return bytes;
}

void classify(const clipedge::Model& model, const clipedge::Bank& bank) {
    const std::vector<std::uint8_t> pixels = noise(160 * 121 * 4);
    std::vector<clipedge_image> images;
    for (const clipedge_format format : {CLIPEDGE_RGB8, CLIPEDGE_BGRA8, CLIPEDGE_GRAY8, CLIPEDGE_UYVY}) {
        images.push_back(clipedge::image(pixels.data(), 159, 121, format));
    }
    const std::vector<float> embeddings = model.encode(images);
    expect(embeddings.size() == images.size() * 128, "there is an embedding for each image");
    const std::vector<float> probabilities = model.classify(bank, images);
    expect(probabilities == bank.classify(embeddings), "images are classified as their embeddings are");
    expect(model.encode(images.front()).size() == 128, "one image is a span of one");
    images[2].strides[0] = 1;
    expect(status_of([&] { model.encode(images); }) == CLIPEDGE_IMAGE_ERROR, "a stride that is too short is refused");
}

void search(const clipedge::Model& model, const std::string& folder) {
    const clipedge::Index index(model, folder);
    const std::vector<std::string> texts{"a photo of a red circle", "caf\xc3\xa9 \xce\xa3", ""};
    const std::vector<float> queries = model.encode_texts(texts);
    const std::vector<clipedge::Hit> hits = index.search({queries.data(), 128}, 5);
    expect(hits.size() == 5 && hits[0].score >= hits[4].score, "five entries are found, the best first");
    expect(!index.key(hits[0].row).empty() && index.metadata(hits[0].row)[0] == '{', "an entry has key and metadata");
    expect(status_of([&] { index.key(1 << 30); }) == CLIPEDGE_USAGE, "a row that is not there is refused");
    expect(status_of([&] { model.tokenize("\xff"); }) == CLIPEDGE_USAGE, "what is no UTF-8 is refused");
}

// Encodes from several threads; the text tower opens in all of them at once.
void in_threads(const clipedge::Model& model, const clipedge::Bank& bank) {
    const std::vector<float> expected = model.encode_texts(std::string("a blue star"));
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (int round = 0; round < 3; ++round) {
                classify(model, bank);
                expect(model.encode_texts(std::string("a blue star")) == expected, "threads get the same numbers");
                expect(status_of([&] { bank.label(1 << 20); }) == CLIPEDGE_USAGE, "each thread has its own last error");
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
}

// A camera's thread pushes 10,000 frames, another one waits for the events, this one looks on.
void watch(const clipedge::Model& model, const clipedge::Bank& bank) {
    const double always = 0;
    clipedge_stream_options options = clipedge::stream_options();
    options.enter_seconds = 0;
    options.enter = &always;
    options.enter_count = 1;
    clipedge::Stream first(model, bank, options);
    clipedge::Stream stream = std::move(first);
    std::size_t appeared = 0;
    std::thread teller([&] {
        while (const auto event = stream.next()) appeared += event->kind == CLIPEDGE_APPEARED ? 1 : 0;
    });
    std::thread camera([&] {
        std::vector<std::uint8_t> pixels(160 * 120 * 3);
        for (int i = 0; i < 10000; ++i) {
            std::fill(pixels.begin(), pixels.end(), static_cast<std::uint8_t>(i % 7 * 30));
            stream.push(clipedge::image(pixels.data(), 160 - i % 3, 120), i / 30.0, i % 500 == 0);
        }
        stream.close();
    });
    while (stream.counts().seen < 10000) expect(stream.presence().smoothed.size() == bank.size(), "all labels are told");
    camera.join();
    teller.join();
    const clipedge_counts counts = stream.counts();
    expect(counts.seen == counts.unchanged + counts.late + counts.answered, "every frame is counted");
    expect(counts.answered >= 20 && appeared == bank.size(), "every label appears once");
    const std::vector<std::uint8_t> pixels = noise(64 * 64 * 3);
    const clipedge_image image = clipedge::image(pixels.data(), 64, 64);
    expect(status_of([&] { stream.push(image, 1e9); }) == CLIPEDGE_USAGE, "a closed stream takes no frames");
    clipedge::Stream left(model, bank);
    left.push(image, 0);  // and is freed before the answer
}

void null_pointers() {
    clipedge_model* model = nullptr;
    float number = 0;
    expect(clipedge_model_load(nullptr, nullptr, &model) == CLIPEDGE_USAGE && !model, "a folder is needed");
    expect(clipedge_model_load("/", nullptr, nullptr) == CLIPEDGE_USAGE, "a place for the model is needed");
    expect(clipedge_encode_images(nullptr, nullptr, 1, &number, 1) == CLIPEDGE_USAGE, "a model is needed");
    expect(clipedge_classify(nullptr, &number, 1, &number, 1) == CLIPEDGE_USAGE, "a bank is needed");
    expect(clipedge_index_key(nullptr, 0, nullptr) == CLIPEDGE_USAGE, "an index is needed");
    clipedge_model_free(nullptr);
    clipedge_bank_free(nullptr);
    clipedge_index_free(nullptr);
    clipedge_stream_free(nullptr);
}

}  // namespace

int main(int count, char** arguments) {
    expect(count >= 3, "it is called as exercise BUNDLE INDEX BROKEN...");
    null_pointers();
    clipedge::Model first(arguments[1]);
    const clipedge::Model model = std::move(first);
    const clipedge::Bank bank(model, "default");
    expect(bank.size() == 120 && !bank.label(0).empty(), "the bank has its labels");
    in_threads(model, bank);
    classify(model, bank);
    watch(model, bank);
    search(model, arguments[2]);
    expect(status_of([&] { clipedge::Bank(model, "no such bank"); }) == CLIPEDGE_USAGE, "an unknown bank is refused");
    for (int i = 3; i < count; ++i) {
        expect(status_of([&] { clipedge::Model broken(arguments[i]); }) != CLIPEDGE_OK, "a broken bundle is refused");
    }
    std::puts("ok");
    return 0;
}
