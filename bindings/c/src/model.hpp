// A loaded bundle: encodes images and texts (clipedge/model.py).
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "bundle.hpp"
#include "pixels.hpp"
#include "session.hpp"
#include "tokenizer.hpp"

namespace clipedge {

class Model {
public:
    // Opens and tests the image tower. Raises Error as open_bundle, checked_options, Session and self_test do.
    Model(const std::string& folder, const EngineOptions& options, const std::string& variant);

    const Bundle& bundle() const { return bundle_; }
    const Manifest& manifest() const { return bundle_.manifest; }
    const std::string& image_variant() const { return image_variant_; }
    std::size_t dim() const { return static_cast<std::size_t>(manifest().embedding_dim); }
    const Preprocessing& preprocessing() const { return preprocessing_; }

    // (images, dim) embeddings. Safe to be called from several threads at once, as all that follows. Raises Error:
    // CLIPEDGE_IMAGE_ERROR for an image that cannot be right, CLIPEDGE_BACKEND where the engine fails.
    void encode_images(const std::vector<Image>& images, float* embeddings) const;
    void encode_texts(const std::vector<std::string_view>& texts, float* embeddings) const;
    // Raises Error (CLIPEDGE_USAGE) if the bundle has no text tower.
    const Tokenizer& tokenizer() const;

private:
    const Variant& chosen(const std::string& tower) const;
    std::unique_ptr<const Session> open(const std::string& tower) const;
    const Session& text_session() const;
    std::unique_ptr<Scratch> take_scratch() const;
    void put_back(std::unique_ptr<Scratch> scratch) const;

    Bundle bundle_;
    EngineOptions options_;
    std::string wanted_variant_;
    std::string image_variant_;
    Preprocessing preprocessing_;
    std::unique_ptr<const Session> image_session_;
    // One for each thread that encodes at the same time.
    mutable std::mutex scratch_lock_;
    mutable std::vector<std::unique_ptr<Scratch>> idle_scratch_;
    // Opened at their first use: a device with prompt banks never needs them.
    mutable std::mutex text_lock_;
    mutable std::unique_ptr<const Session> text_session_;
    mutable std::unique_ptr<const Tokenizer> tokenizer_;
};

}  // namespace clipedge
