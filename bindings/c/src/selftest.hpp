// The golden inputs: a few inputs with the source model's embeddings, by which any device can test an engine.
#pragma once

#include <string>

#include "manifest.hpp"
#include "session.hpp"

namespace clipedge {

// Run the first golden input of the file at `path`. Raises Error: CLIPEDGE_BACKEND for NaN, a constant or an embedding
// that drifted, CLIPEDGE_BUNDLE for goldens that do not fit the tower.
void self_test(const Session& session, const std::string& path, const Variant& variant, std::size_t dim);

}  // namespace clipedge
