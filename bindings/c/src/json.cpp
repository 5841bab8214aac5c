#include "json.hpp"

#include <charconv>
#include <cmath>
#include <set>
#include <system_error>

#include "errors.hpp"
#include "utf8.hpp"

namespace clipedge {

namespace {

constexpr int max_depth = 200;

class Parser {
public:
    Parser(std::string_view text, const std::string& name, Surrogates surrogates)
        : text_(text), name_(name), surrogates_(surrogates) {}

    Json document() {
        Json result = value(0);
        skip_space();
        if (position_ != text_.size()) damaged("something follows the document");
        return result;
    }

private:
    [[noreturn]] void damaged(const char* reason) const {
        fail(CLIPEDGE_BUNDLE, name_, " is not JSON (", reason, " at byte ", position_, "); copy or make it again");
    }

    char peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }

    bool take(char wanted) {
        if (peek() != wanted || position_ >= text_.size()) return false;
        ++position_;
        return true;
    }

    void expect(char wanted, const char* reason) {
        if (!take(wanted)) damaged(reason);
    }

    void skip_space() {
        while (position_ < text_.size() && std::string_view(" \t\n\r").find(text_[position_]) != std::string_view::npos)
            ++position_;
    }

    Json value(int depth) {
        if (depth > max_depth) damaged("lists are nested too deep");
        skip_space();
        Json result;
        result.begin = position_;
        switch (peek()) {
            case '{': result.value = object(depth); break;
            case '[': result.value = list(depth); break;
            case '"': result.value = string(); break;
            case 't': word("true"), result.value = true; break;
            case 'f': word("false"), result.value = false; break;
            case 'n': word("null"); break;
            default: number(result); break;
        }
        result.end = position_;
        return result;
    }

    void word(std::string_view wanted) {
        if (text_.substr(position_, wanted.size()) != wanted) damaged("an unknown word");
        position_ += wanted.size();
    }

    JsonObject object(int depth) {
        JsonObject members;
        std::set<std::string> names;
        ++position_;
        skip_space();
        if (take('}')) return members;
        do {
            skip_space();
            if (peek() != '"') damaged("no name");
            std::string name = string();
            if (!names.insert(name).second) damaged("a name twice in one object");
            skip_space();
            expect(':', "no colon after a name");
            members.push_back({std::move(name), value(depth + 1)});
            skip_space();
        } while (take(','));
        expect('}', "an object that does not end");
        return members;
    }

    JsonList list(int depth) {
        JsonList items;
        ++position_;
        skip_space();
        if (take(']')) return items;
        do {
            items.push_back(value(depth + 1));
            skip_space();
        } while (take(','));
        expect(']', "a list that does not end");
        return items;
    }

    std::string string() {
        std::string result;
        ++position_;
        while (!take('"')) {
            if (take('\\')) {
                escaped(result);
                continue;
            }
            const std::size_t start = position_;
            const char32_t one = next_code_point(text_, position_);
            if (one == no_character) damaged("a text that does not end or is no UTF-8");
            if (one < 0x20) damaged("a control character in a text");
            result.append(text_.substr(start, position_ - start));
        }
        return result;
    }

    void escaped(std::string& result) {
        constexpr std::string_view names = "\"\\/bfnrt";
        constexpr std::string_view meant = "\"\\/\b\f\n\r\t";
        const char name = peek();
        ++position_;
        if (name == 'u') {
            unicode_escape(result);
            return;
        }
        const auto place = names.find(name);
        if (name == '\0' || place == std::string_view::npos) damaged("an unknown escape");
        result.push_back(meant[place]);
    }

    void unicode_escape(std::string& result) {
        const char32_t first = four_digits();
        if (first >= 0xD800 && first < 0xDC00 && text_.substr(position_, 2) == "\\u") {
            const std::size_t behind_first = position_;
            position_ += 2;
            const char32_t second = four_digits();
            if (second >= 0xDC00 && second < 0xE000) {
                append_utf8(result, 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00));
                return;
            }
            position_ = behind_first;
        }
        if (first >= 0xD800 && first < 0xE000) {
            if (surrogates_ == Surrogates::refused) damaged("half of a surrogate pair");
            if (first >= 0xDC80 && first <= 0xDCFF) {
                result.push_back(static_cast<char>(static_cast<unsigned char>(first & 0xFF)));
                return;
            }
        }
        append_utf8(result, first);
    }

    char32_t four_digits() {
        unsigned found = 0;
        const std::string_view digits = text_.substr(position_, 4);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), found, 16);
        if (error != std::errc() || digits.size() != 4 || end != digits.data() + 4) damaged("an escape of no 4 digits");
        position_ += 4;
        return found;
    }

    bool digits() {
        const std::size_t start = position_;
        while (peek() >= '0' && peek() <= '9') ++position_;
        return position_ > start;
    }

    void number(Json& result) {
        const std::size_t start = position_;
        take('-');
        if (!take('0') && !digits()) damaged("no value");
        bool whole = true;
        if (take('.')) {
            whole = false;
            if (!digits()) damaged("a number without digits behind its point");
        }
        if (take('e') || take('E')) {
            whole = false;
            if (!take('+')) take('-');
            if (!digits()) damaged("a number without digits in its exponent");
        }
        store(result, text_.substr(start, position_ - start), whole);
    }

    void store(Json& result, std::string_view digits, bool whole) {
        const char* end = digits.data() + digits.size();
        std::int64_t integer = 0;
        if (whole && std::from_chars(digits.data(), end, integer).ec == std::errc()) {
            result.value = integer;
            return;
        }
        double real = 0;
        const auto error = std::from_chars(digits.data(), end, real).ec;
        // A number too small for a double is out of range as well, and stands for 0 there.
        if (error == std::errc::result_out_of_range && digits.find("e-") == std::string_view::npos &&
            digits.find("E-") == std::string_view::npos) {
            damaged("a number too large");
        }
        if (!std::isfinite(real)) damaged("a number too large");
        result.value = real;
    }

    std::string_view text_;
    const std::string& name_;
    Surrogates surrogates_;
    std::size_t position_ = 0;
};

}  // namespace

const Json* Json::member(std::string_view name) const {
    if (const auto* object = get<JsonObject>()) {
        for (const JsonMember& one : *object) {
            if (one.name == name) return &one.value;
        }
    }
    return nullptr;
}

Json parse_json(std::string_view text, const std::string& name, Surrogates surrogates) {
    return Parser(text, name, surrogates).document();
}

}  // namespace clipedge
