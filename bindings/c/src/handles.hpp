// What the handles of the C interface hold, and what its calls check alike.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "bank.hpp"
#include "clipedge/stream.h"
#include "index.hpp"
#include "model.hpp"
#include "stream.hpp"

struct clipedge_model {
    clipedge::Model model;
    std::string engine;
};

struct clipedge_bank {
    clipedge::Bank bank;
};

struct clipedge_index {
    clipedge::Index index;
};

struct clipedge_stream {
    clipedge_stream(const clipedge_bank& labels, clipedge::Stream::Answer answer, clipedge::EventRule rule)
        : bank(labels), stream(std::move(answer), std::move(rule)) {}

    const clipedge_bank& bank;
    clipedge::Stream stream;
};

namespace clipedge {

// The images of an array whose elements are as far apart as the first one says. Raises Error (CLIPEDGE_USAGE).
std::vector<Image> images_of(const clipedge_image* first, std::size_t count);

// Raises Error, CLIPEDGE_SPACE or CLIPEDGE_BUNDLE, unless the bank is of the model's space.
void check_bank(const Bank& bank, const Model& model);

// A stream of the bank's labels, whatever gives the answers. Raises Error (CLIPEDGE_USAGE) for options that are wrong.
clipedge_stream* new_stream(Stream::Answer answer, const clipedge_bank& bank, const clipedge_stream_options* options);

}  // namespace clipedge
