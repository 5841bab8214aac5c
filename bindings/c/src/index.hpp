// An index as clipedge/retrieval keeps it, opened for reading and searched exactly.
//
// Its log of entries is read whole: tables (entries-G-E.table), which spare Python that, and graphs are not used.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "files.hpp"
#include "indexlog.hpp"

namespace clipedge {

struct Hit {
    std::int64_t row;
    double score;
};

class Index {
public:
    // Raises Error: CLIPEDGE_USAGE if there is none at `folder`, CLIPEDGE_BUNDLE if it is damaged, CLIPEDGE_SPACE if it
    // belongs to another model than `space_id` names.
    Index(const std::string& folder, const std::string& space_id);

    const std::string& space_id() const { return space_id_; }
    std::size_t dim() const { return dim_; }
    std::int64_t size() const { return entries_.living; }

    // The k of highest cosine, best first; of equal scores the lower row. Raises Error: CLIPEDGE_USAGE for a query that
    // is zero or not finite, CLIPEDGE_BUNDLE for vectors that are not finite.
    std::vector<Hit> search(const float* query, std::size_t k) const;

    // Of a live row. Raises Error (CLIPEDGE_USAGE) for any other.
    const Entry& entry(std::int64_t row) const;

private:
    std::string space_id_;
    std::size_t dim_ = 0;
    std::int64_t segment_rows_ = 0;
    Entries entries_;
    std::vector<MappedFile> segments_;
};

}  // namespace clipedge
