// Strict reading of parsed JSON: what is missing, of another type or unknown is refused by its place.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "json.hpp"

namespace clipedge {

// A value with its place in a document, such as "clipedge.json: variants[0].files[1].sha256", for messages.
// All raise Error (CLIPEDGE_BUNDLE).
struct Field {
    const Json* json;
    std::string place;

    bool is_null() const { return json->get<std::monostate>() != nullptr; }
    const std::string& text() const;
    const std::string& choice(std::initializer_list<std::string_view> allowed) const;
    bool boolean() const;
    std::int64_t integer(std::int64_t least = std::numeric_limits<std::int64_t>::min(),
                         std::int64_t largest = std::numeric_limits<std::int64_t>::max()) const;
    double number() const;  // finite
    std::vector<Field> items() const;
    std::vector<std::string> texts() const;  // of a list of texts
    // Refuses what is no object, and names that are neither `required` nor `optional`, or miss one that is required.
    void check_names(std::initializer_list<std::string_view> required,
                     std::initializer_list<std::string_view> optional = {}) const;
    Field operator[](std::string_view name) const;  // has to be there
    bool has(std::string_view name) const { return json->member(name) != nullptr; }

    [[noreturn]] void unexpected(const std::string& expected) const;
};

}  // namespace clipedge
