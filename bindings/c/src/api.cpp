// The C interface: checks what comes in, calls the C++ side, and turns what it throws into a status.
#include <algorithm>
#include <string>
#include <vector>

#include "boundary.hpp"
#include "classify.hpp"
#include "clipedge/clipedge.h"
#include "errors.hpp"
#include "handles.hpp"

using clipedge::check_bank;
using clipedge::check_capacity;
using clipedge::fail;
using clipedge::give;
using clipedge::given;
using clipedge::guarded;
using clipedge::images_of;
using clipedge::taken;

namespace {

std::string text_or_empty(const char* text) { return text ? text : ""; }

clipedge::EngineOptions engine_options(const clipedge_options& options) {
    if (options.sleeping != 0 && options.sleeping != 1) {
        fail(CLIPEDGE_USAGE, "sleeping is 0 or 1, found ", options.sleeping);
    }
    return {static_cast<clipedge::Provider>(options.provider), options.device, options.threads, options.sleeping == 0,
            text_or_empty(options.engine_cache)};
}

clipedge_bank* open_bank(const clipedge::Model& model, const std::string& path) {
    clipedge::Bank bank = clipedge::load_bank(path);
    check_bank(bank, model);
    return new clipedge_bank{std::move(bank)};
}

}  // namespace

extern "C" {

uint32_t clipedge_version(void) {
    return CLIPEDGE_VERSION_MAJOR << 16 | CLIPEDGE_VERSION_MINOR << 8 | CLIPEDGE_VERSION_PATCH;
}

const char* clipedge_last_error(void) { return clipedge::last_error(); }

clipedge_status clipedge_model_load(const char* folder, const clipedge_options* options, clipedge_model** model) {
    return guarded([&] {
        given(model, "model") = nullptr;
        const clipedge_options wanted = options ? taken(options, "clipedge_options") : clipedge_options{};
        *model = new clipedge_model{
            clipedge::Model(&given(folder, "folder"), engine_options(wanted), text_or_empty(wanted.variant)),
            "onnxruntime " + clipedge::runtime_version()};
    });
}

void clipedge_model_free(clipedge_model* model) { delete model; }

clipedge_status clipedge_model_describe(const clipedge_model* model, clipedge_model_info* info) {
    return guarded([&] {
        const clipedge::Model& inner = given(model, "model").model;
        const clipedge::Manifest& manifest = inner.manifest();
        const auto dim = static_cast<std::int32_t>(inner.dim());
        const auto context = static_cast<std::int32_t>(manifest.context_length.value_or(0));
        give(clipedge_model_info{0, dim, inner.preprocessing().width, inner.preprocessing().height, context,
                                 inner.image_variant().c_str(), manifest.space_id.c_str(),
                                 manifest.source_model.c_str(), model->engine.c_str()},
             info, "clipedge_model_info");
    });
}

clipedge_status clipedge_encode_images(const clipedge_model* model, const clipedge_image* images, size_t count,
                                       float* embeddings, size_t capacity) {
    return guarded([&] {
        const clipedge::Model& inner = given(model, "model").model;
        check_capacity(capacity, count, inner.dim(), "embeddings");
        if (count != 0) inner.encode_images(images_of(images, count), &given(embeddings, "embeddings"));
    });
}

clipedge_status clipedge_encode_texts(const clipedge_model* model, const char* const* texts, size_t count,
                                      float* embeddings, size_t capacity) {
    return guarded([&] {
        const clipedge::Model& inner = given(model, "model").model;
        check_capacity(capacity, count, inner.dim(), "embeddings");
        if (count == 0) return;
        given(texts, "texts"), given(embeddings, "embeddings");
        std::vector<std::string_view> views;
        for (std::size_t i = 0; i < count; ++i) views.emplace_back(&given(texts[i], "a text"));
        inner.encode_texts(views, embeddings);
    });
}

clipedge_status clipedge_tokenize(const clipedge_model* model, const char* text, int64_t* ids, size_t capacity,
                                  int64_t* lost) {
    return guarded([&] {
        const clipedge::Tokens tokens = given(model, "model").model.tokenizer()(&given(text, "text"));
        check_capacity(capacity, tokens.ids.size(), 1, "ids");
        std::copy(tokens.ids.begin(), tokens.ids.end(), &given(ids, "ids"));
        if (lost) *lost = tokens.lost;
    });
}

clipedge_status clipedge_bank_open(const clipedge_model* model, const char* name, clipedge_bank** bank) {
    return guarded([&] {
        given(bank, "bank") = nullptr;
        const clipedge::Model& inner = given(model, "model").model;
        *bank = open_bank(inner, inner.bundle().bank_path(&given(name, "name")));
    });
}

clipedge_status clipedge_bank_load(const clipedge_model* model, const char* path, clipedge_bank** bank) {
    return guarded([&] {
        given(bank, "bank") = nullptr;
        *bank = open_bank(given(model, "model").model, &given(path, "path"));
    });
}

void clipedge_bank_free(clipedge_bank* bank) { delete bank; }

clipedge_status clipedge_bank_describe(const clipedge_bank* bank, clipedge_bank_info* info) {
    return guarded([&] {
        const clipedge::Bank& inner = given(bank, "bank").bank;
        const bool has_rule = inner.rule.has_value();
        give(clipedge_bank_info{0, static_cast<std::int32_t>(inner.dim), static_cast<std::int32_t>(inner.labels.size()),
                                static_cast<std::int32_t>(inner.negatives), inner.sigmoid ? 1 : 0,
                                has_rule && inner.rule->multi_label ? 1 : 0, 0,
                                has_rule ? inner.rule->variant.c_str() : nullptr, inner.space_id.c_str()},
             info, "clipedge_bank_info");
    });
}

clipedge_status clipedge_bank_label(const clipedge_bank* bank, size_t number, const char** label) {
    return guarded([&] {
        given(label, "label") = nullptr;
        const std::vector<std::string>& labels = given(bank, "bank").bank.labels;
        if (number >= labels.size()) {
            fail(CLIPEDGE_USAGE, "the bank has ", labels.size(), " labels, from 0 on, found ", number);
        }
        *label = labels[number].c_str();
    });
}

clipedge_status clipedge_classify(const clipedge_bank* bank, const float* embeddings, size_t count,
                                  float* probabilities, size_t capacity) {
    return guarded([&] {
        const clipedge::Bank& inner = given(bank, "bank").bank;
        check_capacity(capacity, count, inner.labels.size(), "probabilities");
        if (count == 0) return;
        clipedge::probabilities(inner, &given(embeddings, "embeddings"), count, &given(probabilities, "probabilities"));
    });
}

clipedge_status clipedge_classify_images(const clipedge_model* model, const clipedge_bank* bank,
                                         const clipedge_image* images, size_t count, float* probabilities,
                                         size_t capacity) {
    return guarded([&] {
        const clipedge::Model& encoder = given(model, "model").model;
        const clipedge::Bank& inner = given(bank, "bank").bank;
        check_bank(inner, encoder);
        check_capacity(capacity, count, inner.labels.size(), "probabilities");
        if (count == 0) return;
        given(probabilities, "probabilities");
        std::vector<float> embeddings(count * encoder.dim());
        encoder.encode_images(images_of(images, count), embeddings.data());
        clipedge::probabilities(inner, embeddings.data(), count, probabilities);
    });
}

clipedge_status clipedge_decide(const clipedge_bank* bank, const float* embeddings, size_t count, int32_t multi_label,
                                uint8_t* accepted, float* probabilities, size_t capacity) {
    return guarded([&] {
        const clipedge::Bank& inner = given(bank, "bank").bank;
        check_capacity(capacity, count, inner.labels.size(), "accepted");
        if (multi_label != 0 && multi_label != 1) fail(CLIPEDGE_USAGE, "multi_label is 0 or 1, found ", multi_label);
        if (count == 0) return;
        clipedge::decide(inner, &given(embeddings, "embeddings"), count, multi_label == 1, &given(accepted, "accepted"),
                         probabilities);
    });
}

clipedge_status clipedge_index_open(const clipedge_model* model, const char* folder, clipedge_index** index) {
    return guarded([&] {
        given(index, "index") = nullptr;
        const clipedge::Model& inner = given(model, "model").model;
        clipedge::Index opened(&given(folder, "folder"), inner.manifest().space_id);
        if (opened.dim() != inner.dim()) {
            fail(CLIPEDGE_BUNDLE, folder, " holds embeddings of ", opened.dim(), " numbers, this bundle's have ",
                 inner.dim(), ": build the index again");
        }
        *index = new clipedge_index{std::move(opened)};
    });
}

void clipedge_index_free(clipedge_index* index) { delete index; }

clipedge_status clipedge_index_describe(const clipedge_index* index, clipedge_index_info* info) {
    return guarded([&] {
        const clipedge::Index& inner = given(index, "index").index;
        give(clipedge_index_info{0, static_cast<std::int32_t>(inner.dim()), 0, inner.size(), inner.space_id().c_str()},
             info, "clipedge_index_info");
    });
}

clipedge_status clipedge_index_search(const clipedge_index* index, const float* query, size_t k, int64_t* rows,
                                      float* scores, size_t* found) {
    return guarded([&] {
        given(found, "found") = 0;
        const clipedge::Index& inner = given(index, "index").index;
        if (k == 0) fail(CLIPEDGE_USAGE, "k is how many entries to find: expected 1 or more, found 0");
        given(rows, "rows"), given(scores, "scores");
        for (const clipedge::Hit& hit : inner.search(&given(query, "query"), k)) {
            rows[*found] = hit.row;
            scores[(*found)++] = static_cast<float>(hit.score);
        }
    });
}

clipedge_status clipedge_index_key(const clipedge_index* index, int64_t row, const char** key) {
    return guarded([&] {
        given(key, "key") = nullptr;
        *key = given(index, "index").index.entry(row).key.c_str();
    });
}

clipedge_status clipedge_index_metadata(const clipedge_index* index, int64_t row, const char** metadata) {
    return guarded([&] {
        given(metadata, "metadata") = nullptr;
        *metadata = given(index, "index").index.entry(row).metadata.c_str();
    });
}

}  // extern "C"
