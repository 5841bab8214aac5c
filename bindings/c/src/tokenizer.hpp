// Texts -> token ids, those of the `tokenizers` library for the tokenizer.json of a CLIP or an OpenCLIP model.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bpe.hpp"
#include "fields.hpp"
#include "textrules.hpp"

namespace clipedge {

// `ids` are context_length of them; `lost` is how many tokens of the text were cut off.
struct Tokens {
    std::vector<std::int64_t> ids;
    std::int64_t lost;
};

// Immutable: safe to be used by several threads at once.
class Tokenizer {
public:
    // `document` is a tokenizer.json that cuts and pads to `context_length` tokens. Raises Error: CLIPEDGE_BUNDLE for
    // one that is damaged or cuts elsewhere, CLIPEDGE_UNSUPPORTED for tokenizers of another kind.
    Tokenizer(std::string_view document, const std::string& name, std::size_t context_length);

    // Raises Error (CLIPEDGE_USAGE) for what is no UTF-8.
    Tokens operator()(std::string_view text) const;

private:
    // A token that is found inside texts as it is written.
    struct Added {
        std::u32string content;
        std::int64_t id;
    };
    using Literals = std::vector<Added>;

    Tokenizer(const Json& document, const std::string& name, std::size_t context_length);
    Tokenizer(const Field& root, const std::string& name, std::size_t context_length);
    void read_added_tokens(const Field& tokens);
    void read_words(const Field& pre_tokenizer);
    void read_frame(const Field& root);
    void append_normalized(std::u32string_view text, std::vector<std::int64_t>& ids) const;
    void append_words(std::u32string_view text, std::vector<std::int64_t>& ids) const;

    std::size_t context_length_;
    TextRules rules_;
    Bpe bpe_;
    Literals raw_;         // found in the text as it was given
    Literals normalized_;  // found after the text rules
    std::vector<std::u32string> word_literals_;
    bool cuts_finer_ = false;
    std::int64_t start_ = 0;
    std::int64_t end_ = 0;
    std::int64_t pad_ = 0;
    bool pads_left_ = false;
};

}  // namespace clipedge
