// Embeddings and a prompt bank -> probabilities and decisions (clipedge/classify.py, clipedge/decisions/rule.py).
#pragma once

#include <cstddef>
#include <cstdint>

#include "bank.hpp"

namespace clipedge {

// (count, labels) probabilities of (count, dim) embeddings of length 1. Softmax: a row sums to 1. Sigmoid: every label
// by itself.
void probabilities(const Bank& bank, const float* embeddings, std::size_t count, float* result);

// Which labels are the answer, (count, labels) of 1 and 0, and, unless nullptr, the probabilities that decide. Raises
// Error (CLIPEDGE_USAGE) where clipedge.Classifier.decide (one label) or decide_all (`multi_label`) raises UsageError.
void decide(const Bank& bank, const float* embeddings, std::size_t count, bool multi_label, std::uint8_t* accepted,
            float* result);

}  // namespace clipedge
