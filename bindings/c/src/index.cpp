#include "index.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <queue>

#include "errors.hpp"
#include "fields.hpp"

namespace clipedge {

namespace {

constexpr std::size_t max_manifest_bytes = 64 * 1024;
constexpr std::size_t max_log_bytes = std::size_t{4} << 30;
constexpr std::size_t lanes = 8;  // sums side by side, so that a compiler can use the processor's vectors

// index.json, as far as reading needs it (clipedge/retrieval/manifest.py).
struct IndexManifest {
    std::string space_id;
    std::size_t dim;
    std::int64_t segment_rows;
    std::int64_t generation;

    bool operator==(const IndexManifest& other) const {
        return generation == other.generation && space_id == other.space_id && dim == other.dim &&
               segment_rows == other.segment_rows;
    }
};

std::string path_in(const std::string& folder, const std::string& name) {
    return (std::filesystem::path(folder) / name).string();
}

IndexManifest read_index_manifest(const std::string& folder) {
    const std::string path = path_in(folder, "index.json");
    if (!is_file(path)) {
        fail(CLIPEDGE_USAGE, "there is no index at ", folder, ": it has no index.json; `clipedge index` makes one");
    }
    const std::string text = read_file(path, max_manifest_bytes);
    const Json document = parse_json(text, path, Surrogates::bytes);
    const Field root{&document, path + ":"};
    root["format"].choice({"clipedge-index"});
    // Lists and graphs are not read: all rows are searched exactly (clipedge/retrieval/manifest.py has the versions).
    const std::int64_t version = root["version"].integer(1, 3);
    if (version == 1) {
        root.check_names({"format", "version", "space_id", "dim", "segment_rows", "generation", "bundle", "graph_rows",
                          "graph_bytes"});
    } else if (version == 2) {
        root.check_names({"format", "version", "space_id", "dim", "segment_rows", "generation", "bundle", "graph_rows",
                          "graph_bytes", "table_end"});
    } else {
        root.check_names({"format", "version", "space_id", "dim", "segment_rows", "generation", "bundle", "listed_rows",
                          "table_end"});
    }
    return {root["space_id"].text(), static_cast<std::size_t>(root["dim"].integer(1, 65536)),
            root["segment_rows"].integer(1, std::int64_t{1} << 32),
            root["generation"].integer(1, std::int64_t{1} << 62)};
}

// Each file's rows, all but the last of `segment_rows`.
std::vector<MappedFile> map_segments(const std::string& folder, const IndexManifest& manifest, std::int64_t rows) {
    std::vector<MappedFile> files;
    for (std::int64_t first = 0; first < rows; first += manifest.segment_rows) {
        const std::string path = path_in(folder, joined("vectors-", manifest.generation, '-', files.size(), ".f16"));
        files.emplace_back(path);
        const auto needed = static_cast<std::size_t>(std::min(manifest.segment_rows, rows - first)) * manifest.dim * 2;
        if (files.back().bytes().size() < needed) {
            fail(CLIPEDGE_BUNDLE, path, " has to hold ", needed, " bytes, found ", files.back().bytes().size(),
                 ": restore the index from a copy or build it again");
        }
    }
    return files;
}

// Half precision to single (IEEE 754-2019, table 3.5): sign, exponent and fraction are moved to their places, which
// leaves the number 2^112 times too small, since exponents count from 15 and from 127. Returns whether it is finite.
bool widen(const char* halves, std::size_t count, float* singles) {
    std::uint32_t largest = 0;
    for (std::size_t i = 0; i < count; ++i) {
        std::uint16_t half;
        std::memcpy(&half, halves + 2 * i, 2);
        const std::uint32_t bits = (half & 0x8000u) << 16 | (half & 0x7FFFu) << 13;
        largest = std::max(largest, half & 0x7C00u);
        float single;
        std::memcpy(&single, &bits, 4);
        singles[i] = single * 0x1p112f;
    }
    return largest != 0x7C00u;
}

// In double, every row in the same order, so that equal vectors have equal scores wherever they lie.
double product(const float* row, const double* query, std::size_t dim) {
    double sums[lanes] = {};
    std::size_t i = 0;
    for (; i + lanes <= dim; i += lanes) {
        for (std::size_t lane = 0; lane < lanes; ++lane) sums[lane] += row[i + lane] * query[i + lane];
    }
    for (; i < dim; ++i) sums[0] += row[i] * query[i];
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
}

// Of length 1, to the precision of a float, as Python's Index has it.
std::vector<double> unit_query(const float* query, std::size_t dim) {
    double square = 0;
    for (std::size_t i = 0; i < dim; ++i) square += static_cast<double>(query[i]) * query[i];
    if (!std::isfinite(square) || square == 0) {
        fail(CLIPEDGE_USAGE, "a query has to be finite and not zero; give an embedding");
    }
    std::vector<double> unit(dim);
    for (std::size_t i = 0; i < dim; ++i) unit[i] = static_cast<float>(query[i] / std::sqrt(square));
    return unit;
}

bool is_better(const Hit& first, const Hit& second) {
    return first.score > second.score || (first.score == second.score && first.row < second.row);
}

}  // namespace

Index::Index(const std::string& folder, const std::string& space_id) {
    for (IndexManifest manifest = read_index_manifest(folder);;) {
        if (manifest.space_id != space_id) {
            fail(CLIPEDGE_SPACE, "the index ", folder, " was made with another model (space ",
                 manifest.space_id.substr(0, 12), "...) than this one (space ", space_id.substr(0, 12),
                 "...): use a bundle of that model, or build the index again");
        }
        try {
            const std::string log = path_in(folder, joined("entries-", manifest.generation, ".log"));
            entries_ = read_log(read_file(log, max_log_bytes), log);
            segments_ = map_segments(folder, manifest, static_cast<std::int64_t>(entries_.rows.size()));
            space_id_ = manifest.space_id, dim_ = manifest.dim, segment_rows_ = manifest.segment_rows;
            return;
        } catch (const Error&) {
            IndexManifest newer = read_index_manifest(folder);
            if (newer == manifest) throw;
            manifest = std::move(newer);  // compacted between the reading of its manifest and of its files
        }
    }
}

std::vector<Hit> Index::search(const float* query, std::size_t k) const {
    const std::vector<double> unit = unit_query(query, dim_);
    std::vector<float> row(dim_);
    std::priority_queue<Hit, std::vector<Hit>, decltype(&is_better)> best(&is_better);  // the worst on top
    for (std::size_t number = 0; number < entries_.rows.size(); ++number) {
        if (!entries_.rows[number].lives) continue;
        const auto place = static_cast<std::int64_t>(number);
        const std::string_view bytes = segments_[static_cast<std::size_t>(place / segment_rows_)].bytes();
        if (!widen(bytes.data() + static_cast<std::size_t>(place % segment_rows_) * dim_ * 2, dim_, row.data())) {
            fail(CLIPEDGE_BUNDLE,
                 "the index holds vectors that are not finite: restore it from a copy or build it again");
        }
        const Hit hit{place, product(row.data(), unit.data(), dim_)};
        if (best.size() < k) {
            best.push(hit);
        } else if (is_better(hit, best.top())) {
            best.pop();
            best.push(hit);
        }
    }
    std::vector<Hit> found(best.size());
    for (std::size_t i = found.size(); i-- > 0; best.pop()) found[i] = best.top();
    return found;
}

const Entry& Index::entry(std::int64_t row) const {
    if (row < 0 || row >= static_cast<std::int64_t>(entries_.rows.size()) ||
        !entries_.rows[static_cast<std::size_t>(row)].lives) {
        fail(CLIPEDGE_USAGE, "the index has no entry at row ", row, "; take rows from a search");
    }
    return entries_.rows[static_cast<std::size_t>(row)];
}

}  // namespace clipedge
