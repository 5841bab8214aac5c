#include "words.hpp"

#include "unicode.hpp"

namespace clipedge {

namespace {

bool is_other(char32_t one) { return !is_space(one) && !is_letter(one) && !is_number(one); }

bool begins_with(std::u32string_view text, std::u32string_view start) { return text.substr(0, start.size()) == start; }

// How many code points at the text's beginning are of one kind.
std::size_t run_of(std::u32string_view text, bool (*is_kind)(char32_t)) {
    std::size_t length = 0;
    while (length < text.size() && is_kind(text[length])) ++length;
    return length;
}

std::size_t contraction(std::u32string_view text) {
    for (const std::u32string_view one : {U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"}) {
        if (begins_with(text, one)) return one.size();
    }
    return 0;
}

// The length of the match at the text's beginning; 0: none begins there.
std::size_t clip_word(std::u32string_view text, const std::vector<std::u32string>& literals) {
    for (const std::u32string& literal : literals) {
        if (begins_with(text, literal)) return literal.size();
    }
    if (const std::size_t length = contraction(text)) return length;
    if (const std::size_t length = run_of(text, is_letter)) return length;
    return is_number(text.front()) ? 1 : run_of(text, is_other);
}

}  // namespace

std::vector<std::u32string_view> clip_words(std::u32string_view text, const std::vector<std::u32string>& literals) {
    std::vector<std::u32string_view> words;
    while (!text.empty()) {
        const std::size_t length = clip_word(text, literals);
        if (length != 0) words.push_back(text.substr(0, length));
        text.remove_prefix(length != 0 ? length : 1);
    }
    return words;
}

std::vector<std::u32string_view> gpt2_words(std::u32string_view word) {
    std::vector<std::u32string_view> pieces;
    while (!word.empty()) {
        std::size_t length = contraction(word);
        if (length == 0) length = run_of(word, is_letter);
        if (length == 0) length = run_of(word, is_number);
        if (length == 0) length = run_of(word, is_other);
        if (length == 0) length = 1;  // white space, which is in no match
        pieces.push_back(word.substr(0, length));
        word.remove_prefix(length);
    }
    return pieces;
}

}  // namespace clipedge
