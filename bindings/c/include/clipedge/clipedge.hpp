// libclipedge from C++17: handles that free themselves, and exceptions in place of statuses. One header over the C
// interface, whose rules (ownership, threads, what may be given) are those of clipedge.h.
//
//     clipedge::Model model("aisle-int8");
//     const clipedge::Bank bank(model, "default");
//     const std::vector<float> probabilities = model.classify(bank, clipedge::image(pixels, 640, 480, CLIPEDGE_BGR8));
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "clipedge/clipedge.h"

namespace clipedge {

// A call that failed. what() says what was expected, what was found and what to do.
class Error : public std::runtime_error {
public:
    explicit Error(clipedge_status status) : std::runtime_error(clipedge_last_error()), status_(status) {}
    clipedge_status status() const noexcept { return status_; }

private:
    clipedge_status status_;
};

inline void check(clipedge_status status) {
    if (status != CLIPEDGE_OK) throw Error(status);
}

// Elements that lie one after the other and belong to somebody else, as C++20's std::span has them.
template <typename T>
class Span {
public:
    constexpr Span() noexcept = default;
    constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
    constexpr Span(T& one) noexcept : data_(&one), size_(1) {}
    template <typename Container, typename = decltype(std::declval<Container&>().size()),
              typename = std::enable_if_t<std::is_convertible_v<decltype(std::declval<Container&>().data()), T*>>>
    constexpr Span(Container&& container) noexcept : data_(container.data()), size_(container.size()) {}

    constexpr T* data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr T* begin() const noexcept { return data_; }
    constexpr T* end() const noexcept { return data_ + size_; }
    constexpr T& operator[](std::size_t place) const noexcept { return data_[place]; }

private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
};

// A picture in one plane whose rows follow each other without a gap; of other layouts fill a clipedge_image.
inline clipedge_image image(const std::uint8_t* pixels, std::int32_t width, std::int32_t height,
                            clipedge_format format = CLIPEDGE_RGB8) {
    const bool has_four = format == CLIPEDGE_RGBA8 || format == CLIPEDGE_BGRA8;
    const bool is_packed = format == CLIPEDGE_YUYV || format == CLIPEDGE_UYVY;
    const int bytes = has_four ? 4 : format == CLIPEDGE_GRAY8 ? 1 : 3;
    const int row = is_packed ? (width + 1) / 2 * 4 : width * bytes;
    clipedge_image made = CLIPEDGE_IMAGE;
    made.planes[0] = pixels;
    made.strides[0] = static_cast<std::size_t>(row);
    made.width = width;
    made.height = height;
    made.format = format;
    return made;
}

inline clipedge_options options() { return CLIPEDGE_OPTIONS; }

class Bank;
class Index;

// A loaded bundle. Movable, not copyable; any number of threads may encode with one at once.
class Model {
public:
    explicit Model(const std::string& folder) { open(folder, nullptr); }
    Model(const std::string& folder, const clipedge_options& options) { open(folder, &options); }

    clipedge_model_info info() const {
        clipedge_model_info found = CLIPEDGE_MODEL_INFO;
        check(clipedge_model_describe(handle_.get(), &found));
        return found;
    }

    // (images, embedding_dim), row after row.
    std::vector<float> encode(Span<const clipedge_image> images) const {
        std::vector<float> embeddings(images.size() * dim());
        const std::size_t capacity = embeddings.size();
        check(clipedge_encode_images(get(), images.data(), images.size(), embeddings.data(), capacity));
        return embeddings;
    }

    // The same of texts: (texts, embedding_dim).
    std::vector<float> encode_texts(Span<const std::string> texts) const {
        std::vector<const char*> pointers;
        for (const std::string& text : texts) pointers.push_back(text.c_str());
        std::vector<float> embeddings(texts.size() * dim());
        const std::size_t capacity = embeddings.size();
        check(clipedge_encode_texts(get(), pointers.data(), pointers.size(), embeddings.data(), capacity));
        return embeddings;
    }

    // (images, labels) probabilities.
    std::vector<float> classify(const Bank& bank, Span<const clipedge_image> images) const;

    std::vector<std::int64_t> tokenize(const std::string& text) const {
        std::vector<std::int64_t> ids(static_cast<std::size_t>(info().context_length));
        check(clipedge_tokenize(handle_.get(), text.c_str(), ids.data(), ids.size(), nullptr));
        return ids;
    }

    const clipedge_model* get() const noexcept { return handle_.get(); }

private:
    struct Free {
        void operator()(clipedge_model* model) const noexcept { clipedge_model_free(model); }
    };

    void open(const std::string& folder, const clipedge_options* options) {
        clipedge_model* model = nullptr;
        check(clipedge_model_load(folder.c_str(), options, &model));
        handle_.reset(model);
    }
    std::size_t dim() const { return static_cast<std::size_t>(info().embedding_dim); }

    std::unique_ptr<clipedge_model, Free> handle_;
};

// A prompt bank.
class Bank {
public:
    // The one called `name` in the model's bundle.
    Bank(const Model& model, const std::string& name) {
        clipedge_bank* bank = nullptr;
        check(clipedge_bank_open(model.get(), name.c_str(), &bank));
        handle_.reset(bank);
    }

    static Bank load(const Model& model, const std::string& path) {
        clipedge_bank* bank = nullptr;
        check(clipedge_bank_load(model.get(), path.c_str(), &bank));
        return Bank(bank);
    }

    clipedge_bank_info info() const {
        clipedge_bank_info found = CLIPEDGE_BANK_INFO;
        check(clipedge_bank_describe(handle_.get(), &found));
        return found;
    }

    std::size_t size() const { return static_cast<std::size_t>(info().labels); }

    std::string label(std::size_t number) const {
        const char* found = nullptr;
        check(clipedge_bank_label(handle_.get(), number, &found));
        return found;
    }

    // (count, labels) probabilities of (count, embedding_dim) embeddings.
    std::vector<float> classify(Span<const float> embeddings) const {
        const std::size_t count = count_of(embeddings);
        std::vector<float> found(count * size());
        check(clipedge_classify(handle_.get(), embeddings.data(), count, found.data(), found.size()));
        return found;
    }

    // The label of each embedding, or none where it is none of them.
    std::vector<std::optional<std::string>> decide(Span<const float> embeddings) const {
        const std::size_t count = count_of(embeddings);
        const std::size_t labels = size();
        std::vector<std::uint8_t> accepted(count * labels);
        check(clipedge_decide(handle_.get(), embeddings.data(), count, 0, accepted.data(), nullptr, accepted.size()));
        std::vector<std::optional<std::string>> found(count);
        for (std::size_t i = 0; i < accepted.size(); ++i) {
            if (accepted[i] != 0) found[i / labels] = label(i % labels);
        }
        return found;
    }

    const clipedge_bank* get() const noexcept { return handle_.get(); }

private:
    struct Free {
        void operator()(clipedge_bank* bank) const noexcept { clipedge_bank_free(bank); }
    };

    explicit Bank(clipedge_bank* bank) : handle_(bank) {}
    std::size_t count_of(Span<const float> embeddings) const {
        const auto dim = static_cast<std::size_t>(info().embedding_dim);
        if (embeddings.size() % dim != 0) throw std::invalid_argument("embeddings are no whole number of rows");
        return embeddings.size() / dim;
    }

    std::unique_ptr<clipedge_bank, Free> handle_;
};

inline std::vector<float> Model::classify(const Bank& bank, Span<const clipedge_image> images) const {
    std::vector<float> found(images.size() * bank.size());
    check(clipedge_classify_images(get(), bank.get(), images.data(), images.size(), found.data(), found.size()));
    return found;
}

struct Hit {
    std::int64_t row;
    float score;
};

// An index, to be searched.
class Index {
public:
    Index(const Model& model, const std::string& folder) {
        clipedge_index* index = nullptr;
        check(clipedge_index_open(model.get(), folder.c_str(), &index));
        handle_.reset(index);
    }

    clipedge_index_info info() const {
        clipedge_index_info found = CLIPEDGE_INDEX_INFO;
        check(clipedge_index_describe(handle_.get(), &found));
        return found;
    }

    // The entries of highest cosine for one embedding, best first.
    std::vector<Hit> search(Span<const float> query, std::size_t k) const {
        const clipedge_index_info about = info();
        if (query.size() != static_cast<std::size_t>(about.embedding_dim)) {
            throw std::invalid_argument("a query has as many numbers as the index's embeddings");
        }
        k = std::min(k, std::max<std::size_t>(1, static_cast<std::size_t>(about.entries)));
        std::vector<std::int64_t> rows(k);
        std::vector<float> scores(k);
        std::size_t found = 0;
        check(clipedge_index_search(handle_.get(), query.data(), k, rows.data(), scores.data(), &found));
        std::vector<Hit> hits;
        for (std::size_t i = 0; i < found; ++i) hits.push_back({rows[i], scores[i]});
        return hits;
    }

    std::string key(std::int64_t row) const {
        const char* found = nullptr;
        check(clipedge_index_key(handle_.get(), row, &found));
        return found;
    }

    std::string metadata(std::int64_t row) const {
        const char* found = nullptr;
        check(clipedge_index_metadata(handle_.get(), row, &found));
        return found;
    }

private:
    struct Free {
        void operator()(clipedge_index* index) const noexcept { clipedge_index_free(index); }
    };

    std::unique_ptr<clipedge_index, Free> handle_;
};

}  // namespace clipedge
