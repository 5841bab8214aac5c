// Byte-level byte pair encoding (Sennrich et al. 2016, arXiv 1508.07909), with "</w>" at the end of a word.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace clipedge {

class Bpe {
public:
    using Vocabulary = std::unordered_map<std::string, std::int64_t>;

    // Raises Error (CLIPEDGE_BUNDLE) where a byte, or what a merge needs or makes, is not in the vocabulary.
    Bpe(const Vocabulary& vocabulary, const std::vector<std::pair<std::string, std::string>>& merges,
        const std::string& name);

    // Appends the token ids of a word in UTF-8.
    void append(std::string_view word, std::vector<std::int64_t>& ids) const;

private:
    struct Merge {
        std::size_t rank;
        std::int64_t id;
    };

    const Merge* merge_of(std::int64_t first, std::int64_t second) const;

    std::int64_t inside_[256];
    std::int64_t at_end_[256];
    std::unordered_map<std::uint64_t, Merge> merges_;
};

}  // namespace clipedge
