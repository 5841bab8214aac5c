// Where CLIP's tokenizer cuts a text into words: its two regular expressions, written out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace clipedge {

// The matches of  LITERAL|...|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+  one after the other.
std::vector<std::u32string_view> clip_words(std::u32string_view text, const std::vector<std::u32string>& literals);

// The pieces that GPT-2's expression makes of one such match, which has no white space in it:
// 's|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}+|[^\s\p{L}\p{N}]+
std::vector<std::u32string_view> gpt2_words(std::u32string_view word);

}  // namespace clipedge
