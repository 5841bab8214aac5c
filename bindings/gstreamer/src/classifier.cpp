#include "classifier.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace clipedge::gst {

namespace {

Model load(const Loading& loading) {
    if (loading.bundle.empty()) {
        throw std::invalid_argument("no bundle is named: set the property bundle to a folder of `clipedge export`");
    }
    clipedge_options options = clipedge::options();
    options.provider = loading.provider;
    options.device = loading.device;
    options.threads = loading.threads;
    options.sleeping = loading.sleeping ? 1 : 0;
    options.variant = loading.variant.empty() ? nullptr : loading.variant.c_str();
    return Model(loading.bundle, options);
}

Bank open(const Model& model, const std::string& bank) {
    return bank.find('/') == std::string::npos ? Bank(model, bank) : Bank::load(model, bank);
}

}  // namespace

Classifier::Classifier(const Loading& loading) : model_(load(loading)), bank_(open(model_, loading.bank)) {
    for (std::size_t number = 0; number < bank_.size(); ++number) labels_.push_back(bank_.label(number));
}

std::vector<Label> Classifier::best(const clipedge_image& image, const Asking& asking) const {
    const std::vector<float> found = model_.classify(bank_, image);
    std::vector<std::size_t> order(found.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(asking.top_k, order.size()));
    std::partial_sort(order.begin(), end, order.end(), [&](auto one, auto other) { return found[one] > found[other]; });
    std::vector<Label> best;
    for (auto number = order.begin(); number != end && found[*number] >= asking.threshold; ++number) {
        best.push_back({labels_[*number], found[*number]});
    }
    return best;
}

}  // namespace clipedge::gst
