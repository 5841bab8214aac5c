#include "utf8.hpp"

#include "errors.hpp"

namespace clipedge {

namespace {

// How many bytes follow a first byte, and which bits of it count; 0 follow an ASCII byte, -1 means no first byte.
struct Lead {
    int following;
    char32_t bits;
    char32_t least;  // a smaller code point would be an overlong form
};

Lead lead_of(unsigned char byte) {
    if (byte < 0x80) return {0, byte, 0};
    if (byte >= 0xC2 && byte < 0xE0) return {1, byte & 0x1Fu, 0x80};
    if (byte >= 0xE0 && byte < 0xF0) return {2, byte & 0x0Fu, 0x800};
    if (byte >= 0xF0 && byte < 0xF5) return {3, byte & 0x07u, 0x10000};
    return {-1, 0, 0};
}

}  // namespace

char32_t next_code_point(std::string_view text, std::size_t& position) {
    if (position >= text.size()) return no_character;
    const Lead lead = lead_of(static_cast<unsigned char>(text[position]));
    if (lead.following < 0 || text.size() - position <= static_cast<std::size_t>(lead.following)) return no_character;
    char32_t found = lead.bits;
    for (int i = 1; i <= lead.following; ++i) {
        const auto byte = static_cast<unsigned char>(text[position + static_cast<std::size_t>(i)]);
        if ((byte & 0xC0) != 0x80) return no_character;
        found = found << 6 | (byte & 0x3Fu);
    }
    if (found < lead.least || found > 0x10FFFF || (found >= 0xD800 && found < 0xE000)) return no_character;
    position += static_cast<std::size_t>(lead.following) + 1;
    return found;
}

void append_utf8(std::string& text, char32_t code_point) {
    const auto put = [&text](char32_t byte) { text.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
    if (code_point < 0x80) {
        put(code_point);
    } else if (code_point < 0x800) {
        put(0xC0 | code_point >> 6);
        put(0x80 | (code_point & 0x3F));
    } else if (code_point < 0x10000) {
        put(0xE0 | code_point >> 12);
        put(0x80 | (code_point >> 6 & 0x3F));
        put(0x80 | (code_point & 0x3F));
    } else {
        put(0xF0 | code_point >> 18);
        put(0x80 | (code_point >> 12 & 0x3F));
        put(0x80 | (code_point >> 6 & 0x3F));
        put(0x80 | (code_point & 0x3F));
    }
}

std::u32string code_points(std::string_view text) {
    std::u32string found;
    found.reserve(text.size());
    for (std::size_t position = 0; position < text.size();) {
        const char32_t one = next_code_point(text, position);
        if (one == no_character) {
            fail(CLIPEDGE_USAGE, "expected a text in UTF-8, found a byte at ", position,
                 " that is none; convert the text first");
        }
        found.push_back(one);
    }
    return found;
}

}  // namespace clipedge
