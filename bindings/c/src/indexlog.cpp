#include "indexlog.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "errors.hpp"
#include "fields.hpp"

namespace clipedge {

namespace {

constexpr std::size_t header_bytes = 12;
constexpr std::size_t max_payload_bytes = 64 * 1024 * 1024;

// The CRC of zlib (ITU-T V.42).
std::uint32_t crc32(std::string_view bytes) {
    static const std::array<std::uint32_t, 256> table = [] {
        std::array<std::uint32_t, 256> made{};
        for (std::uint32_t byte = 0; byte < 256; ++byte) {
            std::uint32_t value = byte;
            for (int bit = 0; bit < 8; ++bit) value = value & 1 ? 0xEDB88320u ^ value >> 1 : value >> 1;
            made[byte] = value;
        }
        return made;
    }();
    std::uint32_t crc = 0xFFFFFFFF;
    for (const char byte : bytes) crc = table[(crc ^ static_cast<unsigned char>(byte)) & 0xFF] ^ crc >> 8;
    return ~crc;
}

std::uint32_t little_endian(std::string_view bytes, std::size_t position) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i) {
        value |= std::uint32_t{static_cast<unsigned char>(bytes[position + i])} << (8 * i);
    }
    return value;
}

[[noreturn]] void damaged(const std::string& name, std::size_t position, const char* reason) {
    fail(CLIPEDGE_BUNDLE, name, " is damaged at byte ", position, " (", reason,
         "): restore the index from a copy or build it again");
}

// The payload of the record at `position`; none at the log's end, or where a record was cut off.
std::optional<std::string_view> payload_at(std::string_view bytes, std::size_t position, const std::string& name) {
    const std::string_view rest = bytes.substr(position);
    if (rest.size() < header_bytes) return std::nullopt;
    if (crc32(rest.substr(0, 8)) != little_endian(rest, 8)) {
        // Zeros: the power went while the file grew.
        if (std::all_of(rest.begin(), rest.end(), [](char byte) { return byte == 0; })) return std::nullopt;
        damaged(name, position, "the header of a record has another checksum");
    }
    const std::size_t length = little_endian(rest, 0);
    if (length > max_payload_bytes) damaged(name, position, "a record larger than any");
    const std::string_view payload = rest.substr(header_bytes, length);
    if (payload.size() == length && crc32(payload) == little_endian(rest, 4)) return payload;
    if (header_bytes + length >= rest.size()) return std::nullopt;
    damaged(name, position, "a record has another checksum");
}

std::vector<std::string> distinct(const Field& field) {
    std::vector<std::string> texts = field.texts();
    if (std::set<std::string>(texts.begin(), texts.end()).size() != texts.size()) field.unexpected("distinct keys");
    return texts;
}

class Reader {
public:
    explicit Reader(const std::string& name) : name_(name) {}

    void apply(std::string_view payload) {
        const Json document = parse_json(payload, name_, Surrogates::bytes);
        const Field record{&document, name_ + ":"};
        record.check_names({"first_row", "keys", "metadata", "removed"});
        const auto first = static_cast<std::int64_t>(entries_.rows.size());
        record["first_row"].integer(first, first);
        std::vector<std::string> keys = distinct(record["keys"]);
        const std::vector<Field> metadata = record["metadata"].items();
        if (metadata.size() != keys.size()) record["metadata"].unexpected(joined(keys.size(), " objects"));
        for (const std::string& key : distinct(record["removed"])) bury(key);
        for (std::size_t i = 0; i < keys.size(); ++i) {
            const Json& json = *metadata[i].json;
            if (!json.get<JsonObject>()) metadata[i].unexpected("an object");
            bury(keys[i]);
            rows_[keys[i]] = entries_.rows.size();
            entries_.rows.push_back(
                {std::move(keys[i]), std::string(payload.substr(json.begin, json.end - json.begin)), true});
            ++entries_.living;
        }
    }

    Entries take() { return std::move(entries_); }

private:
    void bury(const std::string& key) {
        const auto found = rows_.find(key);
        if (found == rows_.end()) return;
        entries_.rows[found->second] = Entry{};
        --entries_.living;
        rows_.erase(found);
    }

    const std::string& name_;
    Entries entries_;
    std::unordered_map<std::string, std::size_t> rows_;
};

}  // namespace

Entries read_log(std::string_view bytes, const std::string& name) {
    Reader reader(name);
    for (std::size_t position = 0;;) {
        const std::optional<std::string_view> payload = payload_at(bytes, position, name);
        if (!payload) return reader.take();
        reader.apply(*payload);
        position += header_bytes + payload->size();
    }
}

}  // namespace clipedge
