#include "classify.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "errors.hpp"

namespace clipedge {

namespace {

using Logits = std::vector<double>;

constexpr double nothing_at_all = -std::numeric_limits<double>::infinity();

// In double: a sigmoid model's probabilities are often so small that float would round them to zero on the way.
Logits logits_of(const Bank& bank, const std::vector<float>& rows, const float* embedding) {
    Logits logits;
    for (std::size_t row = 0; row < rows.size(); row += bank.dim) {
        double cosine = 0;
        for (std::size_t i = 0; i < bank.dim; ++i) cosine += static_cast<double>(rows[row + i]) * embedding[i];
        logits.push_back(bank.logit_scale * cosine + bank.logit_bias);
    }
    return logits;
}

double largest(const Logits& logits) {
    return logits.empty() ? nothing_at_all : *std::max_element(logits.begin(), logits.end());
}

// log of the sum of exponentials; minus infinity of none.
double log_sum(const Logits& logits) {
    const double peak = largest(logits);
    if (logits.empty()) return peak;
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit - peak);
    return peak + std::log(sum);
}

double sigmoid(double logit) {
    const double decay = std::exp(-std::abs(logit));  // never overflows
    return (logit < 0 ? decay : 1) / (1 + decay);
}

// Logits of one picture: of the labels, and of what is none of them.
struct DecisionLogits {
    Logits labels;
    Logits nothing;
};

DecisionLogits decision_logits(const Bank& bank, const float* embedding, const DecisionRule& rule) {
    DecisionLogits logits{logits_of(bank, bank.label_embeds, embedding),
                          logits_of(bank, bank.negative_embeds, embedding)};
    if (rule.multi_label && bank.sigmoid) logits.nothing.push_back(0);
    if (rule.floor) logits.nothing.push_back(*rule.floor);
    return logits;
}

// Softmax with the negatives, or each label alone against them.
std::vector<double> decision_probabilities(DecisionLogits logits, const DecisionRule& rule) {
    for (Logits* part : {&logits.labels, &logits.nothing}) {
        for (double& logit : *part) logit /= rule.temperature;
    }
    std::vector<double> result;
    if (rule.multi_label) {
        const double against = log_sum(logits.nothing);
        for (const double logit : logits.labels) result.push_back(sigmoid(logit - against));
        return result;
    }
    Logits all = logits.labels;
    all.insert(all.end(), logits.nothing.begin(), logits.nothing.end());
    const double total = log_sum(all);
    for (const double logit : logits.labels) result.push_back(std::exp(logit - total));
    return result;
}

bool is_accepted(const DecisionLogits& logits, const DecisionRule& rule, std::size_t best, std::size_t label,
                 double probability) {
    if (rule.multi_label) return probability >= (rule.thresholds.empty() ? even : rule.thresholds[label]);
    if (label != best) return false;
    if (!rule.thresholds.empty()) return probability >= rule.thresholds[label];
    return logits.labels[label] > largest(logits.nothing);
}

// Every label on its own stands against something.
void check_compared(const Bank& bank, const DecisionRule& rule) {
    if (rule.multi_label && bank.negatives == 0 && !bank.sigmoid && !rule.floor) {
        fail(CLIPEDGE_USAGE, "every label on its own needs something that it is compared with: make the bank with "
                             "negatives (only models trained with the sigmoid do without)");
    }
}

DecisionRule checked_rule(const Bank& bank, bool multi_label) {
    DecisionRule rule;
    rule.multi_label = multi_label;
    if (bank.rule) rule = *bank.rule;
    if (rule.multi_label != multi_label) {
        fail(CLIPEDGE_USAGE, "the bank's rule was fitted for ", rule.multi_label ? "several labels" : "one label",
             " to a picture: decide with multi_label ", rule.multi_label ? 1 : 0, ", or fit it again");
    }
    if (!multi_label && bank.negatives == 0 && rule.thresholds.empty() && !rule.floor) {
        fail(CLIPEDGE_USAGE, "the bank has neither negatives nor thresholds, so nothing is ever \"none of these\"; "
                             "make it with `clipedge prompts --negatives` or --fit, or call clipedge_classify");
    }
    check_compared(bank, rule);
    return rule;
}

}  // namespace

void probabilities(const Bank& bank, const float* embeddings, std::size_t count, float* result) {
    for (std::size_t picture = 0; picture < count; ++picture) {
        const Logits logits = logits_of(bank, bank.label_embeds, embeddings + picture * bank.dim);
        const double total = log_sum(logits);
        for (const double logit : logits) {
            *result++ = static_cast<float>(bank.sigmoid ? sigmoid(logit) : std::exp(logit - total));
        }
    }
}

void decide(const Bank& bank, const float* embeddings, std::size_t count, bool multi_label, std::uint8_t* accepted,
            float* result) {
    const DecisionRule rule = checked_rule(bank, multi_label);
    for (std::size_t picture = 0; picture < count; ++picture) {
        const DecisionLogits logits = decision_logits(bank, embeddings + picture * bank.dim, rule);
        const std::vector<double> found = decision_probabilities(logits, rule);
        const auto best = static_cast<std::size_t>(
            std::max_element(logits.labels.begin(), logits.labels.end()) - logits.labels.begin());
        for (std::size_t label = 0; label < found.size(); ++label) {
            *accepted++ = is_accepted(logits, rule, best, label, found[label]) ? 1 : 0;
            if (result) *result++ = static_cast<float>(found[label]);
        }
    }
}

std::vector<double> answer(const Bank& bank, const float* embedding) {
    if (!bank.rule && bank.negatives == 0) {
        std::vector<float> found(bank.labels.size());
        probabilities(bank, embedding, 1, found.data());
        return {found.begin(), found.end()};
    }
    const DecisionRule rule = bank.rule.value_or(DecisionRule{});
    check_compared(bank, rule);
    std::vector<double> found = decision_probabilities(decision_logits(bank, embedding, rule), rule);
    for (double& value : found) value = static_cast<float>(value);  // as every answer of a classifier
    return found;
}

}  // namespace clipedge
