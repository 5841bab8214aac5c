// A prompt bank: label embeddings computed once, in one file (clipedge/prompts/bank.py).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace clipedge {

// How a bank's logits become answers (clipedge/decisions/rule.py). `thresholds` has one for each label, or none.
struct DecisionRule {
    double temperature = 1;
    std::vector<double> thresholds;
    bool multi_label = false;
    std::string variant;
    std::optional<double> floor;
};

// Embeddings are row after row, (labels, dim) and (negatives, dim), of length 1.
struct Bank {
    std::vector<std::string> labels;
    std::size_t negatives = 0;
    std::size_t dim = 0;
    std::vector<float> label_embeds;
    std::vector<float> negative_embeds;
    double logit_scale = 1;
    double logit_bias = 0;
    bool sigmoid = false;
    std::string space_id;
    std::optional<DecisionRule> rule;
};

// `bytes` are the file's; what teaching and tuning keep there is not read. Raises Error (CLIPEDGE_BUNDLE).
Bank parse_bank(std::string_view bytes, const std::string& name);

// Raises Error: CLIPEDGE_USAGE if there is none at `path`, CLIPEDGE_BUNDLE if it is damaged.
Bank load_bank(const std::string& path);

}  // namespace clipedge
