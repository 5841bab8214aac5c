// A bundle with a prompt bank.
#pragma once

#include <string>
#include <vector>

#include "answer.hpp"
#include "clipedge/clipedge.hpp"
#include "settings.hpp"

namespace clipedge::gst {

class Classifier {
public:
    // Throws clipedge::Error, with libclipedge's text, and std::invalid_argument where no bundle is named.
    explicit Classifier(const Loading& loading);

    // The top_k most probable labels among those of at least the threshold, the best first. Throws clipedge::Error.
    std::vector<Label> best(const clipedge_image& image, const Asking& asking) const;

private:
    Model model_;
    Bank bank_;
    std::vector<std::string> labels_;
};

}  // namespace clipedge::gst
