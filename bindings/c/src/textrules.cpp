#include "textrules.hpp"

#include "errors.hpp"
#include "unicode.hpp"

namespace clipedge {

namespace {

bool is_control(char32_t one) {
    return one <= 0x08 || one == 0x0B || (one >= 0x0E && one <= 0x1F) || one == 0x7F || one == 0xFEFF ||
           (one >= 0x206A && one <= 0x206F) || (one >= 0xFFF9 && one <= 0xFFFC);
}

std::u32string without_controls(std::u32string_view text) {
    std::u32string result;
    for (const char32_t one : text) {
        if (!is_control(one)) result.push_back(one);
    }
    return result;
}

std::u32string straight_single(std::u32string_view text) {
    std::u32string result(text);
    for (char32_t& one : result) {
        if (one == 0x02BC || (one >= 0x2018 && one <= 0x201B)) one = U'\'';
    }
    return result;
}

std::u32string straight_double(std::u32string_view text) {
    std::u32string result(text);
    for (char32_t& one : result) {
        if (one >= 0x201C && one <= 0x201F) one = U'"';
    }
    return result;
}

std::u32string single_spaces(std::u32string_view text) {
    std::u32string result;
    bool in_space = false;
    for (const char32_t one : text) {
        const bool space = is_space(one);
        if (!space) result.push_back(one);
        if (space && !in_space) result.push_back(U' ');
        in_space = space;
    }
    return result;
}

// The one letter whose lower case depends on its place.
std::u32string final_sigma(std::u32string_view text) {
    std::u32string result(text);
    for (std::size_t i = 1; i < text.size(); ++i) {
        const bool ends = i + 1 == text.size() || !is_letter(text[i + 1]);
        if (text[i] == U'\u03A3' && is_letter(text[i - 1]) && ends) result[i] = U'\u03C2';
    }
    return result;
}

struct Replacement {
    std::string_view pattern;
    std::string_view content;
    std::u32string (*rule)(std::u32string_view);
};

// As export/checkpoints/tokenizer.py and export/checkpoints/openclip/tokenizer.py write them.
constexpr Replacement replacements[] = {
    {R"(\s+)", " ", single_spaces},
    {R"([\x00-\x08\x0B\x0E-\x1F\x7F\u206A-\u206F\uFEFF\uFFF9-\uFFFC])", "", without_controls},
    {R"([\u02BC\u2018-\u201B])", "'", straight_single},
    {R"([\u201C-\u201F])", "\"", straight_double},
    {"(?<=\\p{L})\u03A3(?!\\p{L})", "\u03C2", final_sigma}};

std::u32string (*replacement(const Field& field))(std::u32string_view) {
    field.check_names({"type", "pattern", "content"});
    const Json* pattern = field["pattern"].json->member("Regex");
    const std::string* regex = pattern ? pattern->get<std::string>() : nullptr;
    for (const Replacement& one : replacements) {
        if (regex && *regex == one.pattern && field["content"].text() == one.content) return one.rule;
    }
    fail(CLIPEDGE_UNSUPPORTED, field.place, ": a text rule that this library does not have: only CLIP's and OpenCLIP's "
                                            "tokenizers are supported; use the Python package");
}

}  // namespace

TextRules::TextRules(const Field& normalizer) {
    normalizer["type"].choice({"Sequence"});
    for (const Field& step : normalizer["normalizers"].items()) {
        const std::string& type = step["type"].text();
        if (type == "NFC") {
            rules_.push_back(nfc);
        } else if (type == "Lowercase") {
            rules_.push_back(lowered);
        } else if (type == "Replace") {
            rules_.push_back(replacement(step));
        } else {
            fail(CLIPEDGE_UNSUPPORTED, step.place, ": this library has no text rule ", type.substr(0, 40),
                 ": only CLIP's and OpenCLIP's tokenizers are supported; use the Python package");
        }
    }
}

std::u32string TextRules::operator()(std::u32string_view text) const {
    std::u32string result(text);
    for (const Rule rule : rules_) result = rule(result);
    return result;
}

}  // namespace clipedge
