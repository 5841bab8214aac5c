// A strict JSON parser (RFC 8259).
//
// Its own, not a library's: an index keeps file names that are no UTF-8 as lone surrogates ("\udc80"), as Python writes
// them, which nlohmann-json and others refuse; and what was altered has to be refused, not repaired.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace clipedge {

struct Json;
struct JsonMember;
using JsonList = std::vector<Json>;
using JsonObject = std::vector<JsonMember>;

// A value, and the bytes of the source that it was written in. A whole number that an int64 holds is an int64_t, every
// other number a double.
struct Json {
    std::variant<std::monostate, bool, std::int64_t, double, std::string, JsonList, JsonObject> value;
    std::size_t begin = 0;
    std::size_t end = 0;

    template <typename T>
    const T* get() const {
        return std::get_if<T>(&value);
    }
    // The member of an object, or nullptr; of anything else nullptr.
    const Json* member(std::string_view name) const;
};

struct JsonMember {
    std::string name;
    Json value;
};

// What to do with half of a surrogate pair: "\udc80" to "\udcff" may stand for the bytes 80 to ff, as in Python's
// "surrogateescape".
enum class Surrogates { refused, bytes };

// Raises Error (CLIPEDGE_BUNDLE) that begins with `name` for what is no JSON, has a name twice in an object, a number
// beyond every double, or lists nested more than 200 deep.
Json parse_json(std::string_view text, const std::string& name, Surrogates surrogates = Surrogates::refused);

}  // namespace clipedge
