// Embeddings and a prompt bank -> probabilities and decisions (clipedge/classify.py, clipedge/decisions/rule.py).
#pragma once

#include <cstddef>
#include <cstdint>

#include <vector>

#include "bank.hpp"

namespace clipedge {

constexpr double even = 0.5;  // threshold of a label that stands alone, before one was fitted

// (count, labels) probabilities of (count, dim) embeddings of length 1. Softmax: a row sums to 1. Sigmoid: every label
// by itself.
void probabilities(const Bank& bank, const float* embeddings, std::size_t count, float* result);

// Which labels are the answer, (count, labels) of 1 and 0, and, unless nullptr, the probabilities that decide. Raises
// Error (CLIPEDGE_USAGE) where clipedge.Classifier.decide (one label) or decide_all (`multi_label`) raises UsageError.
void decide(const Bank& bank, const float* embeddings, std::size_t count, bool multi_label, std::uint8_t* accepted,
            float* result);

// What a stream takes for the labels' probabilities in one picture (clipedge.camera.stream.answer): those that decide if
// the bank has a rule or negatives, else those of `probabilities`. Raises Error (CLIPEDGE_USAGE) for a rule of several
// labels in a bank with nothing to compare them with.
std::vector<double> answer(const Bank& bank, const float* embedding);

}  // namespace clipedge
