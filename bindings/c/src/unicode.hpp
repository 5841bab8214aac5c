// What CLIP's text rules need of Unicode. The tables are those of the `tokenizers` library (tools/unicode_tables.py
// asks it), so that the same versions of Unicode give the same token ids.
#pragma once

#include <string>
#include <string_view>

namespace clipedge {

bool is_letter(char32_t code_point);  // \p{L}
bool is_number(char32_t code_point);  // \p{N}
bool is_space(char32_t code_point);   // \s

// Normalization form C (Unicode Standard Annex 15).
std::u32string nfc(std::u32string_view text);

// Each code point's lower case, whatever stands beside it.
std::u32string lowered(std::u32string_view text);

}  // namespace clipedge
