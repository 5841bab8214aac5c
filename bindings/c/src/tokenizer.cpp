#include "tokenizer.hpp"

#include <algorithm>
#include <set>

#include "errors.hpp"
#include "utf8.hpp"
#include "words.hpp"

namespace clipedge {

namespace {

constexpr std::int64_t most_ids = std::int64_t{1} << 31;

// CLIP's words; the expression may begin with the start and the end token, as transformers writes it.
constexpr std::string_view words = R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
constexpr std::string_view literals = R"(<\|startoftext\|>|<\|endoftext\|>|)";

[[noreturn]] void unsupported(const Field& field, const char* what) {
    fail(CLIPEDGE_UNSUPPORTED, field.place, ": ", what,
         ": only CLIP's and OpenCLIP's tokenizers are supported; use the Python package");
}

// A member that has to have one value, or to be null or false.
void check_off(const Field& field, const char* name) {
    if (!field.has(name)) return;
    const Field found = field[name];
    const auto* flag = found.json->get<bool>();
    if (!found.is_null() && !(flag && !*flag)) unsupported(found, "an option that this library does not have");
}

Bpe read_model(const Field& model, const std::string& name) {
    if (model["type"].text() != "BPE") unsupported(model["type"], "another kind of model");
    for (const char* option : {"dropout", "fuse_unk", "byte_fallback", "ignore_merges"}) check_off(model, option);
    if (model["end_of_word_suffix"].text() != "</w>") unsupported(model, "words that end otherwise");
    if (model.has("continuing_subword_prefix")) {
        const Field prefix = model["continuing_subword_prefix"];
        if (!prefix.is_null() && !prefix.text().empty()) unsupported(prefix, "words that go on otherwise");
    }
    const auto* object = model["vocab"].json->get<JsonObject>();
    if (!object) model["vocab"].unexpected("an object");
    Bpe::Vocabulary vocabulary;
    for (const JsonMember& token : *object) {
        vocabulary.emplace(token.name, Field{&token.value, model.place + ".vocab"}.integer(0, most_ids));
    }
    std::vector<std::pair<std::string, std::string>> merges;
    for (const Field& merge : model["merges"].items()) {
        std::vector<std::string> parts;
        if (const auto* text = merge.json->get<std::string>()) {
            const std::size_t space = text->find(' ');
            if (space != std::string::npos) parts = {text->substr(0, space), text->substr(space + 1)};
        } else {
            parts = merge.texts();
        }
        if (parts.size() != 2) merge.unexpected("two tokens");
        merges.emplace_back(std::move(parts[0]), std::move(parts[1]));
    }
    return Bpe(vocabulary, merges, name);
}

std::int64_t framing_token(const Field& field) {
    const std::vector<Field> pair = field.items();
    if (pair.size() != 2) field.unexpected("a token and its id");
    pair[0].text();
    return pair[1].integer(0, most_ids);
}

// The leftmost token in the text, of those that begin there the longest; its place in `position`.
template <typename Literals>
const typename Literals::value_type* find_first(const Literals& tokens, std::u32string_view text,
                                                std::size_t& position) {
    const typename Literals::value_type* found = nullptr;
    position = std::u32string_view::npos;
    for (const auto& token : tokens) {
        const std::size_t place = text.find(token.content);
        if (place == std::u32string_view::npos) continue;
        if (!found || place < position || (place == position && token.content.size() > found->content.size())) {
            found = &token, position = place;
        }
    }
    return found;
}

// Cuts a text at tokens that stand in it: `between` gets what lies between them, `ids` the tokens.
template <typename Literals, typename Between>
void cut_at(const Literals& tokens, std::u32string_view text, std::vector<std::int64_t>& ids, const Between& between) {
    std::size_t position = 0;
    while (const auto* token = find_first(tokens, text, position)) {
        between(text.substr(0, position));
        ids.push_back(token->id);
        text.remove_prefix(position + token->content.size());
    }
    between(text);
}

}  // namespace

Tokenizer::Tokenizer(std::string_view document, const std::string& name, std::size_t context_length)
    : Tokenizer(parse_json(document, name), name, context_length) {}

Tokenizer::Tokenizer(const Json& document, const std::string& name, std::size_t context_length)
    : Tokenizer(Field{&document, name + ":"}, name, context_length) {}

Tokenizer::Tokenizer(const Field& root, const std::string& name, std::size_t context_length)
    : context_length_(context_length), rules_(root["normalizer"]), bpe_(read_model(root["model"], name)) {
    root.check_names({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                      "post_processor", "decoder", "model"});
    root["version"].choice({"1.0"});
    read_added_tokens(root["added_tokens"]);
    read_words(root["pre_tokenizer"]);
    read_frame(root);
}

void Tokenizer::read_added_tokens(const Field& tokens) {
    for (const Field& token : tokens.items()) {
        token.check_names({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
        for (const char* option : {"single_word", "lstrip", "rstrip"}) check_off(token, option);
        const bool is_normalized = token["normalized"].boolean();
        std::u32string content = code_points(token["content"].text());
        if (is_normalized) content = rules_(content);
        if (content.empty()) token["content"].unexpected("a text that is not empty");
        (is_normalized ? normalized_ : raw_).push_back({std::move(content), token["id"].integer(0, most_ids)});
    }
}

void Tokenizer::read_words(const Field& pre_tokenizer) {
    pre_tokenizer["type"].choice({"Sequence"});
    const std::vector<Field> steps = pre_tokenizer["pretokenizers"].items();
    if (steps.size() != 2 || steps[0]["type"].text() != "Split" || steps[1]["type"].text() != "ByteLevel") {
        unsupported(pre_tokenizer, "words that are found otherwise");
    }
    std::string_view expression = steps[0]["pattern"]["Regex"].text();
    if (expression.substr(0, literals.size()) == literals) {
        expression.remove_prefix(literals.size());
        word_literals_ = {U"<|startoftext|>", U"<|endoftext|>"};
    }
    const bool inverted = steps[0]["invert"].boolean();
    if (expression != words || steps[0]["behavior"].text() != "Removed" || !inverted) {
        unsupported(steps[0], "words that are found otherwise");
    }
    check_off(steps[1], "add_prefix_space");
    cuts_finer_ = !steps[1].has("use_regex") || steps[1]["use_regex"].boolean();
}

void Tokenizer::read_frame(const Field& root) {
    const auto length = static_cast<std::int64_t>(context_length_);
    const Field cut = root["truncation"];
    const Field pad = root["padding"];
    if (cut.is_null() || pad.is_null()) root.unexpected("a tokenizer that cuts and pads");
    cut["max_length"].integer(length, length);
    cut["stride"].integer(0, 0);
    cut["direction"].choice({"Right"});
    pad["strategy"]["Fixed"].integer(length, length);
    pads_left_ = pad["direction"].choice({"Left", "Right"}) == "Left";
    pad_ = pad["pad_id"].integer(0, most_ids);
    const Field frame = root["post_processor"];
    if (frame["type"].text() != "RobertaProcessing") unsupported(frame, "texts that begin and end otherwise");
    start_ = framing_token(frame["cls"]);
    end_ = framing_token(frame["sep"]);
    if (context_length_ < 3) cut["max_length"].unexpected("room for a text between its start and its end");
}

Tokens Tokenizer::operator()(std::string_view text) const {
    std::vector<std::int64_t> found;
    const std::u32string characters = code_points(text);
    cut_at(raw_, characters, found, [&](std::u32string_view piece) { append_normalized(rules_(piece), found); });
    const std::size_t kept = std::min(found.size(), context_length_ - 2);
    Tokens tokens{{start_}, static_cast<std::int64_t>(found.size() - kept)};
    tokens.ids.insert(tokens.ids.end(), found.begin(), found.begin() + static_cast<std::ptrdiff_t>(kept));
    tokens.ids.push_back(end_);
    const auto place = pads_left_ ? tokens.ids.begin() : tokens.ids.end();
    tokens.ids.insert(place, context_length_ - tokens.ids.size(), pad_);
    return tokens;
}

void Tokenizer::append_normalized(std::u32string_view text, std::vector<std::int64_t>& ids) const {
    cut_at(normalized_, text, ids, [&](std::u32string_view piece) { append_words(piece, ids); });
}

void Tokenizer::append_words(std::u32string_view text, std::vector<std::int64_t>& ids) const {
    const auto append = [&](std::u32string_view word) {
        std::string bytes;
        for (const char32_t one : word) append_utf8(bytes, one);
        bpe_.append(bytes, ids);
    };
    for (const std::u32string_view word : clip_words(text, word_literals_)) {
        if (!cuts_finer_) {
            append(word);
            continue;
        }
        for (const std::u32string_view piece : gpt2_words(word)) append(piece);
    }
}

}  // namespace clipedge
