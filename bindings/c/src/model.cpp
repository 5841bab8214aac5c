#include "model.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "errors.hpp"
#include "files.hpp"
#include "selftest.hpp"

namespace clipedge {

namespace {

// Inputs that go through an engine at once, as in clipedge/model.py: enough to fill the cores, little enough memory for
// a board.
constexpr std::size_t batch = 16;
constexpr std::size_t max_tokenizer_bytes = 64 * 1024 * 1024;

Interpolation interpolation_of(const std::string& name) {
    if (name == "nearest") return Interpolation::nearest;
    if (name == "bilinear") return Interpolation::bilinear;
    return name == "bicubic" ? Interpolation::bicubic : Interpolation::lanczos;
}

Preprocessing preprocessing_of(const PreprocessingEntry& entry) {
    Preprocessing how{};
    how.width = static_cast<std::int32_t>(entry.width);
    how.height = static_cast<std::int32_t>(entry.height);
    how.resize = entry.resize == "squash" ? ResizeMode::squash : ResizeMode::shortest_edge;
    how.shortest_edge = static_cast<std::int32_t>(entry.shortest_edge);
    how.interpolation = interpolation_of(entry.interpolation);
    how.crop_offset = entry.crop_offset == "half-even" ? CropOffset::half_even : CropOffset::down;
    return how;
}

}  // namespace

Model::Model(const std::string& folder, const EngineOptions& options, const std::string& variant)
    : bundle_(open_bundle(folder)),
      options_(checked_options(options)),
      wanted_variant_(variant),
      image_variant_(chosen("image").name()),
      preprocessing_(preprocessing_of(manifest().preprocessing)) {
    image_session_ = open("image");
    const auto width = static_cast<std::size_t>(preprocessing_.width);
    const std::size_t pixels = width * static_cast<std::size_t>(preprocessing_.height);
    if (image_session_->input_bytes() != pixels * 3) {
        fail(CLIPEDGE_BUNDLE, "the image tower takes ", image_session_->input_bytes(), " bytes, expected ", pixels * 3,
             " for ", preprocessing_.width, " x ", preprocessing_.height, " pixels: export the bundle again");
    }
}

const Variant& Model::chosen(const std::string& tower) const {
    return choose_variant(bundle_, tower, wanted_variant_, options_.provider != Provider::cpu);
}

std::unique_ptr<const Session> Model::open(const std::string& tower) const {
    const Variant& variant = chosen(tower);
    auto session = std::make_unique<const Session>(bundle_.checked_variant(variant), variant, options_);
    self_test(*session, bundle_.checked_file("golden.safetensors"), variant, dim());
    return session;
}

void Model::encode_images(const std::vector<Image>& images, float* embeddings) const {
    const std::size_t bytes = image_session_->input_bytes();
    std::vector<std::uint8_t> pixels(std::min(batch, images.size()) * bytes);
    std::unique_ptr<Scratch> scratch = take_scratch();
    for (std::size_t start = 0; start < images.size(); start += batch) {
        const std::size_t count = std::min(batch, images.size() - start);
        for (std::size_t i = 0; i < count; ++i) {
            try {
                preprocess(images[start + i], preprocessing_, pixels.data() + i * bytes, *scratch);
            } catch (const std::invalid_argument& error) {
                fail(CLIPEDGE_IMAGE_ERROR, "images[", start + i, "]: ", error.what());
            }
        }
        image_session_->run(pixels.data(), count, embeddings + start * dim(), dim());
    }
    put_back(std::move(scratch));
}

std::unique_ptr<Scratch> Model::take_scratch() const {
    const std::lock_guard<std::mutex> lock(scratch_lock_);
    if (idle_scratch_.empty()) return std::make_unique<Scratch>();
    std::unique_ptr<Scratch> scratch = std::move(idle_scratch_.back());
    idle_scratch_.pop_back();
    return scratch;
}

void Model::put_back(std::unique_ptr<Scratch> scratch) const {
    const std::lock_guard<std::mutex> lock(scratch_lock_);
    idle_scratch_.push_back(std::move(scratch));
}

void Model::encode_texts(const std::vector<std::string_view>& texts, float* embeddings) const {
    const Tokenizer& tokens = tokenizer();
    const Session& session = text_session();
    std::vector<std::int64_t> ids;
    for (std::size_t start = 0; start < texts.size(); start += batch) {
        const std::size_t count = std::min(batch, texts.size() - start);
        ids.clear();
        for (std::size_t i = 0; i < count; ++i) {
            const Tokens found = tokens(texts[start + i]);
            ids.insert(ids.end(), found.ids.begin(), found.ids.end());
        }
        session.run(ids.data(), count, embeddings + start * dim(), dim());
    }
}

const Tokenizer& Model::tokenizer() const {
    const std::lock_guard<std::mutex> lock(text_lock_);
    if (!tokenizer_) {
        if (!manifest().context_length) {
            fail(CLIPEDGE_USAGE, bundle_.folder, " has no text tower; use a prompt bank, or export without --no-text");
        }
        const std::string path = bundle_.checked_file("tokenizer.json");
        const auto length = static_cast<std::size_t>(*manifest().context_length);
        tokenizer_ = std::make_unique<const Tokenizer>(read_file(path, max_tokenizer_bytes), path, length);
    }
    return *tokenizer_;
}

const Session& Model::text_session() const {
    const std::lock_guard<std::mutex> lock(text_lock_);
    if (!text_session_) {
        auto session = open("text");
        const auto length = static_cast<std::size_t>(*manifest().context_length);
        if (session->input_bytes() != length * sizeof(std::int64_t)) {
            fail(CLIPEDGE_BUNDLE, "the text tower does not take ", length, " tokens: export the bundle again");
        }
        text_session_ = std::move(session);
    }
    return *text_session_;
}

}  // namespace clipedge
