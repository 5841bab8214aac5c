#include "bpe.hpp"

#include <functional>
#include <queue>
#include <tuple>

#include "errors.hpp"
#include "utf8.hpp"

namespace clipedge {

namespace {

constexpr char end_of_word[] = "</w>";

// The printable characters by which vocabularies name bytes: most by themselves, the others by those from U+0100 on.
std::string name_of_byte(int byte) {
    const auto stands_for_itself = [](int one) {
        return (one >= 33 && one <= 126) || (one >= 161 && one <= 172) || one >= 174;
    };
    char32_t others = 0;
    for (int one = 0; one < byte; ++one) others += stands_for_itself(one) ? 0 : 1;
    std::string name;
    append_utf8(name, stands_for_itself(byte) ? static_cast<char32_t>(byte) : 256 + others);
    return name;
}

std::int64_t id_of(const Bpe::Vocabulary& vocabulary, const std::string& token, const std::string& name) {
    const auto found = vocabulary.find(token);
    if (found == vocabulary.end()) {
        fail(CLIPEDGE_BUNDLE, name, ": its vocabulary lacks a token of ", token.size(),
             " bytes that it needs; only tokenizers of CLIP's kind are supported. Export the bundle again");
    }
    return found->second;
}

// A part of a word; `next` and `previous` are places in the word, -1 for none. A part that was merged into the one
// before it has the id -1.
struct Part {
    std::int64_t id;
    std::ptrdiff_t previous;
    std::ptrdiff_t next;
};

}  // namespace

Bpe::Bpe(const Vocabulary& vocabulary, const std::vector<std::pair<std::string, std::string>>& merges,
         const std::string& name) {
    for (int byte = 0; byte < 256; ++byte) {
        inside_[byte] = id_of(vocabulary, name_of_byte(byte), name);
        at_end_[byte] = id_of(vocabulary, name_of_byte(byte) + end_of_word, name);
    }
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
        const auto& [first, second] = merges[rank];
        const auto left = static_cast<std::uint64_t>(id_of(vocabulary, first, name));
        const auto right = static_cast<std::uint64_t>(id_of(vocabulary, second, name));
        // Of a pair that is there twice the later counts, as in tokenizers.
        merges_[left << 32 | right] = {rank, id_of(vocabulary, first + second, name)};
    }
}

const Bpe::Merge* Bpe::merge_of(std::int64_t first, std::int64_t second) const {
    const auto found = merges_.find(static_cast<std::uint64_t>(first) << 32 | static_cast<std::uint64_t>(second));
    return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::append(std::string_view word, std::vector<std::int64_t>& ids) const {
    const auto size = static_cast<std::ptrdiff_t>(word.size());
    std::vector<Part> parts;
    for (std::ptrdiff_t i = 0; i < size; ++i) {
        const auto byte = static_cast<unsigned char>(word[static_cast<std::size_t>(i)]);
        parts.push_back({i + 1 == size ? at_end_[byte] : inside_[byte], i - 1, i + 1 == size ? -1 : i + 1});
    }
    const auto part = [&parts](std::ptrdiff_t place) -> Part& { return parts[static_cast<std::size_t>(place)]; };
    using Candidate = std::tuple<std::size_t, std::ptrdiff_t, std::int64_t>;  // rank, place, what it makes
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
    const auto consider = [&](std::ptrdiff_t place) {
        if (place < 0 || part(place).next < 0) return;
        if (const Merge* merge = merge_of(part(place).id, part(part(place).next).id)) {
            candidates.emplace(merge->rank, place, merge->id);
        }
    };
    for (std::ptrdiff_t i = 0; i < size; ++i) consider(i);
    while (!candidates.empty()) {
        const auto [rank, place, made] = candidates.top();
        candidates.pop();
        Part& left = part(place);
        if (left.id < 0 || left.next < 0) continue;
        const Merge* merge = merge_of(left.id, part(left.next).id);
        if (!merge || merge->rank != rank) continue;  // one of the two was merged meanwhile
        Part& right = part(left.next);
        left.id = made;
        left.next = right.next;
        right.id = -1;
        if (left.next >= 0) part(left.next).previous = place;
        consider(place);
        consider(left.previous);
    }
    for (const Part& one : parts) {
        if (one.id >= 0) ids.push_back(one.id);
    }
}

}  // namespace clipedge
