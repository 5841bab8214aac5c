#include "fields.hpp"

#include <algorithm>

#include "errors.hpp"

namespace clipedge {

namespace {

constexpr std::size_t quoted = 80;

// A name that a message can show.
std::string shown(std::string_view name) {
    std::string text(name.substr(0, quoted));
    std::replace_if(text.begin(), text.end(), [](unsigned char byte) { return byte < 0x20 || byte > 0x7E; }, '?');
    return text;
}

std::string found_in(const Json& json) {
    if (json.get<std::monostate>()) return "null";
    if (const auto* value = json.get<bool>()) return *value ? "true" : "false";
    if (const auto* value = json.get<std::int64_t>()) return std::to_string(*value);
    if (const auto* value = json.get<double>()) return joined(*value);
    if (const auto* value = json.get<std::string>()) return '"' + shown(*value) + '"';
    return json.get<JsonList>() ? "a list" : "an object";
}

}  // namespace

void Field::unexpected(const std::string& expected) const {
    fail(CLIPEDGE_BUNDLE, place, ": expected ", expected, ", found ", found_in(*json),
         "; it was altered: make it or copy it again");
}

const std::string& Field::text() const {
    const auto* value = json->get<std::string>();
    if (!value) unexpected("a text");
    return *value;
}

const std::string& Field::choice(std::initializer_list<std::string_view> allowed) const {
    const auto* value = json->get<std::string>();
    if (!value || std::find(allowed.begin(), allowed.end(), *value) == allowed.end()) {
        std::string expected;
        for (const std::string_view one : allowed) expected.append(expected.empty() ? "" : " or ").append(one);
        unexpected(expected);
    }
    return *value;
}

bool Field::boolean() const {
    const auto* value = json->get<bool>();
    if (!value) unexpected("true or false");
    return *value;
}

std::int64_t Field::integer(std::int64_t least, std::int64_t largest) const {
    const auto* value = json->get<std::int64_t>();
    if (!value || *value < least || *value > largest) {
        unexpected(joined("a whole number from ", least, " to ", largest));
    }
    return *value;
}

double Field::number() const {
    if (const auto* whole = json->get<std::int64_t>()) return static_cast<double>(*whole);
    const auto* value = json->get<double>();
    if (!value) unexpected("a finite number");
    return *value;
}

std::vector<Field> Field::items() const {
    const auto* list = json->get<JsonList>();
    if (!list) unexpected("a list");
    std::vector<Field> fields;
    fields.reserve(list->size());
    for (const Json& item : *list) fields.push_back({&item, joined(place, '[', fields.size(), ']')});
    return fields;
}

std::vector<std::string> Field::texts() const {
    std::vector<std::string> found;
    for (const Field& item : items()) found.push_back(item.text());
    return found;
}

void Field::check_names(std::initializer_list<std::string_view> required,
                        std::initializer_list<std::string_view> optional) const {
    const auto* object = json->get<JsonObject>();
    if (!object) unexpected("an object");
    for (const std::string_view name : required) (*this)[name];
    for (const JsonMember& member : *object) {
        const auto is_known = [&member](auto names) {
            return std::find(names.begin(), names.end(), member.name) != names.end();
        };
        if (!is_known(required) && !is_known(optional)) {
            fail(CLIPEDGE_BUNDLE, place, ": unknown field ", shown(member.name),
                 "; it was altered, or made by a newer clipedge: make it again, or update this library");
        }
    }
}

Field Field::operator[](std::string_view name) const {
    const Json* found = json->member(name);
    if (!found) fail(CLIPEDGE_BUNDLE, place, ": missing field ", name, "; it was altered: make it or copy it again");
    const char last = place.empty() ? ' ' : place.back();
    return {found, joined(place, last == ':' ? " " : ".", name)};
}

}  // namespace clipedge
