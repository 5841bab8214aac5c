// The append log of an index (clipedge/retrieval/entrylog.py): which row belongs to which key.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace clipedge {

// `metadata` is a JSON object, as it is written in the log. A dead row has neither.
struct Entry {
    std::string key;
    std::string metadata;
    bool lives = false;
};

struct Entries {
    std::vector<Entry> rows;
    std::int64_t living = 0;
};

// What the records of a log add up to. The part of a record that a killed writer left at the end is not counted; any
// other fault raises Error (CLIPEDGE_BUNDLE).
Entries read_log(std::string_view bytes, const std::string& name);

}  // namespace clipedge
