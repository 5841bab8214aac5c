// UTF-8, strictly (RFC 3629): no overlong forms, no surrogates, nothing beyond U+10FFFF.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace clipedge {

constexpr char32_t no_character = 0xFFFFFFFF;

// The code point at `position`, which moves behind it; no_character, and no move, where there is none.
char32_t next_code_point(std::string_view text, std::size_t& position);

// Also of surrogates, which then are no UTF-8.
void append_utf8(std::string& text, char32_t code_point);

// The code points of a text. Raises Error (CLIPEDGE_USAGE) for what is no UTF-8.
std::u32string code_points(std::string_view text);

}  // namespace clipedge
