#include "safetensors.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "errors.hpp"
#include "fields.hpp"

namespace clipedge {

namespace {

constexpr std::size_t length_bytes = 8;
constexpr std::size_t max_header_bytes = 16 * 1024 * 1024;  // a bank of 10,000 labels has one of some hundred KB
constexpr std::int64_t max_dimension = std::int64_t{1} << 40;

[[noreturn]] void damaged(const std::string& name, const std::string& reason) {
    fail(CLIPEDGE_BUNDLE, name, " is no readable safetensors file (", reason, "): copy or make it again");
}

std::uint64_t number_size(const Field& dtype) {
    constexpr std::pair<std::string_view, std::uint64_t> sizes[] = {
        {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
        {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},     {"U64", 8},     {"I64", 8}, {"F64", 8}};
    for (const auto& [known, size] : sizes) {
        if (dtype.text() == known) return size;
    }
    dtype.unexpected("a type of numbers that safetensors has");
}

// Where a tensor lies, and what it is.
struct Entry {
    std::string key;
    Tensor tensor;
    std::uint64_t begin;
    std::uint64_t end;
};

Entry entry_of(const std::string& key, const Field& field) {
    field.check_names({"dtype", "shape", "data_offsets"});
    Entry entry{key, {field["dtype"].text(), {}, {}}, 0, 0};
    std::uint64_t size = number_size(field["dtype"]);
    for (const Field& dimension : field["shape"].items()) {
        const std::int64_t length = dimension.integer(0, max_dimension);
        entry.tensor.shape.push_back(length);
        if (length != 0 && size > std::numeric_limits<std::uint64_t>::max() / static_cast<std::uint64_t>(length)) {
            field["shape"].unexpected("a tensor that a file can hold");
        }
        size *= static_cast<std::uint64_t>(length);
    }
    const std::vector<Field> offsets = field["data_offsets"].items();
    if (offsets.size() != 2) field["data_offsets"].unexpected("a list of 2");
    entry.begin = static_cast<std::uint64_t>(offsets[0].integer(0));
    entry.end = static_cast<std::uint64_t>(offsets[1].integer(0));
    if (entry.end < entry.begin || entry.end - entry.begin != size) {
        field["data_offsets"].unexpected(joined(size, " bytes for this shape"));
    }
    return entry;
}

// In the order of their offsets, which have to follow each other from 0 to the end of `data`.
void place_tensors(Safetensors& file, std::vector<Entry>& entries, std::string_view data) {
    std::sort(entries.begin(), entries.end(), [](const Entry& first, const Entry& second) {
        return std::pair(first.begin, first.end) < std::pair(second.begin, second.end);
    });
    std::uint64_t position = 0;
    for (Entry& entry : entries) {
        if (entry.begin != position || entry.end > data.size()) {
            damaged(file.name, joined("tensor ", entry.key.substr(0, 80), " lies at bytes ", entry.begin, " to ",
                                      entry.end, ", expected it at ", position, " in ", data.size()));
        }
        position = entry.end;
        entry.tensor.bytes = data.substr(entry.begin, entry.end - entry.begin);
        file.tensors.emplace(std::move(entry.key), std::move(entry.tensor));
    }
    if (position != data.size()) damaged(file.name, joined(data.size() - position, " bytes are left over"));
}

}  // namespace

Safetensors parse_safetensors(std::string_view bytes, const std::string& name) {
    if (bytes.size() < length_bytes) damaged(name, joined("it has ", bytes.size(), " bytes"));
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < length_bytes; ++i) {
        length |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    }
    if (length > max_header_bytes || length > bytes.size() - length_bytes) {
        damaged(name, joined("its header has ", length, " bytes, the file ", bytes.size()));
    }
    const Json header = parse_json(bytes.substr(length_bytes, length), name);
    const auto* object = header.get<JsonObject>();
    if (!object) damaged(name, "its header is no object");
    Safetensors file{{}, {}, name};
    std::vector<Entry> entries;
    for (const JsonMember& member : *object) {
        const Field field{&member.value, joined(name, ": ", member.name.substr(0, 80))};
        if (member.name != "__metadata__") {
            entries.push_back(entry_of(member.name, field));
            continue;
        }
        const auto* texts = member.value.get<JsonObject>();
        if (!texts) field.unexpected("an object");
        for (const JsonMember& text : *texts) file.metadata.emplace(text.name, field[text.name].text());
    }
    place_tensors(file, entries, bytes.substr(length_bytes + length));
    return file;
}

const Tensor& Safetensors::tensor(const std::string& key, const std::string& dtype, std::size_t dimensions) const {
    const auto found = tensors.find(key);
    if (found == tensors.end()) damaged(name, "it has no tensor " + key);
    const Tensor& tensor = found->second;
    if (tensor.dtype != dtype || tensor.shape.size() != dimensions) {
        damaged(name, joined(key, ": expected ", dtype, " of ", dimensions, " dimensions, found ", tensor.dtype, " of ",
                             tensor.shape.size()));
    }
    return tensor;
}

std::vector<float> floats_of(const Tensor& tensor) {
    std::vector<float> numbers(tensor.bytes.size() / sizeof(float));
    if (!numbers.empty()) std::memcpy(numbers.data(), tensor.bytes.data(), numbers.size() * sizeof(float));
    return numbers;
}

}  // namespace clipedge
