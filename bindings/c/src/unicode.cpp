#include "unicode.hpp"

#include <algorithm>
#include <iterator>
#include <unordered_map>

namespace clipedge {

namespace {

struct Range {
    char32_t first;
    char32_t last;
};

struct ClassRange {
    char32_t first;
    char32_t last;
    unsigned char combining_class;
};

struct Lower {
    char32_t from;
    char32_t to;
    char32_t then;  // 0: nothing
};

// One step of a canonical decomposition; `second` is 0 for a code point that stands for one other. `composes`: the way
// back is taken as well.
struct Decomposition {
    char32_t from;
    char32_t first;
    char32_t second;
    bool composes;
};

#include "unicode_case.inc"
#include "unicode_classes.inc"
#include "unicode_forms.inc"

// Hangul syllables are computed (The Unicode Standard, section 3.12).
constexpr char32_t s_base = 0xAC00, l_base = 0x1100, v_base = 0x1161, t_base = 0x11A7;
constexpr char32_t l_count = 19, v_count = 21, t_count = 28, s_count = l_count * v_count * t_count;

template <typename Row, std::size_t Size>
const Row* range_of(const Row (&rows)[Size], char32_t code_point) {
    const Row* found = std::upper_bound(std::begin(rows), std::end(rows), code_point,
                                        [](char32_t value, const Row& row) { return value < row.first; });
    return found != std::begin(rows) && code_point <= (found - 1)->last ? found - 1 : nullptr;
}

template <typename Row, std::size_t Size>
const Row* row_of(const Row (&rows)[Size], char32_t code_point) {
    const Row* found = std::lower_bound(std::begin(rows), std::end(rows), code_point,
                                        [](const Row& row, char32_t value) { return row.from < value; });
    return found != std::end(rows) && found->from == code_point ? found : nullptr;
}

int combining_class(char32_t code_point) {
    const ClassRange* found = range_of(combining_classes, code_point);
    return found ? found->combining_class : 0;
}

void decompose(char32_t code_point, std::u32string& result) {
    if (code_point >= s_base && code_point < s_base + s_count) {
        const char32_t index = code_point - s_base;
        result.push_back(l_base + index / (v_count * t_count));
        result.push_back(v_base + index % (v_count * t_count) / t_count);
        if (index % t_count != 0) result.push_back(t_base + index % t_count);
        return;
    }
    const Decomposition* found = row_of(decompositions, code_point);
    if (!found) {
        result.push_back(code_point);
        return;
    }
    decompose(found->first, result);
    if (found->second != 0) decompose(found->second, result);
}

// What two code points become, or 0.
char32_t composed(char32_t first, char32_t second) {
    static const auto pairs = [] {
        std::unordered_map<std::uint64_t, char32_t> made;
        for (const Decomposition& one : decompositions) {
            if (one.composes) made.emplace(std::uint64_t{one.first} << 32 | one.second, one.from);
        }
        return made;
    }();
    if (first >= l_base && first < l_base + l_count && second >= v_base && second < v_base + v_count) {
        return s_base + ((first - l_base) * v_count + (second - v_base)) * t_count;
    }
    const bool is_open = first >= s_base && first < s_base + s_count && (first - s_base) % t_count == 0;
    if (is_open && second > t_base && second < t_base + t_count) return first + (second - t_base);
    const auto found = pairs.find(std::uint64_t{first} << 32 | second);
    return found == pairs.end() ? 0 : found->second;
}

// Marks behind a letter go in the order of their classes.
void put_in_order(std::u32string& text) {
    const auto is_starter = [](char32_t one) { return combining_class(one) == 0; };
    for (auto start = text.begin(); start != text.end();) {
        start = std::find_if_not(start, text.end(), is_starter);
        const auto end = std::find_if(start, text.end(), is_starter);
        std::stable_sort(start, end, [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
        start = end;
    }
}

std::u32string compose(const std::u32string& text) {
    constexpr auto none = std::u32string::npos;
    std::u32string result;
    std::size_t starter = none;
    int last_class = -1;  // of what stands between the starter and here; -1: nothing does
    for (const char32_t one : text) {
        const int own_class = combining_class(one);
        if (starter != none && last_class < own_class) {
            if (const char32_t both = composed(result[starter], one)) {
                result[starter] = both;
                continue;
            }
        }
        result.push_back(one);
        if (own_class == 0) {
            starter = result.size() - 1;
            last_class = -1;
        } else {
            last_class = own_class;
        }
    }
    return result;
}

}  // namespace

bool is_letter(char32_t code_point) { return range_of(letters, code_point) != nullptr; }
bool is_number(char32_t code_point) { return range_of(numbers, code_point) != nullptr; }
bool is_space(char32_t code_point) { return range_of(spaces, code_point) != nullptr; }

std::u32string nfc(std::u32string_view text) {
    // Below U+0300 nothing decomposes that would not be composed again, and nothing combines.
    if (std::all_of(text.begin(), text.end(), [](char32_t one) { return one < 0x300; })) return std::u32string(text);
    std::u32string parts;
    for (const char32_t one : text) decompose(one, parts);
    put_in_order(parts);
    return compose(parts);
}

std::u32string lowered(std::u32string_view text) {
    std::u32string result;
    for (const char32_t one : text) {
        const Lower* found = row_of(lower_case, one);
        result.push_back(found ? found->to : one);
        if (found && found->then != 0) result.push_back(found->then);
    }
    return result;
}

}  // namespace clipedge
