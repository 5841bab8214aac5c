"""Classifier: images against a prompt bank, with scikit-learn's verbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipedge.images import Images
from clipedge.prompts import PromptBank

__all__ = ["Classifier", "probabilities"]


@dataclass(frozen=True)
class Classifier:
    """Zero-shot classification. ``encode_image`` maps images to (N, D) embeddings of the bank's space."""

    encode_image: Callable[[Images], npt.NDArray[np.float32]]
    bank: PromptBank

    @property
    def labels(self) -> tuple[str, ...]:
        return self.bank.labels

    def predict(self, images: Images) -> npt.NDArray[np.str_]:
        """The best label of each image, (N,)."""
        best: npt.NDArray[np.str_] = np.asarray(self.labels)[self.predict_proba(images).argmax(axis=1)]
        return best

    def predict_proba(self, images: Images) -> npt.NDArray[np.float32]:
        """(N, labels) probabilities in the order of ``labels``.

        Softmax models: each row sums to 1, "which of these". Sigmoid models: every label on its own.
        """
        return probabilities(self.encode_image(images), self.bank)


def probabilities(image_embeds: npt.NDArray[np.float32], bank: PromptBank) -> npt.NDArray[np.float32]:
    """Probabilities (N, labels) of (N, D) image embeddings under a bank."""
    # In float64: a sigmoid model's probabilities are often so small that float32 would round them to zero on the way.
    cosines = np.asarray(image_embeds @ bank.label_embeds.T, np.float64)
    logits = bank.logit_scale * cosines + bank.logit_bias
    if bank.activation == "sigmoid":
        decay = np.exp(-np.abs(logits))  # never overflows
        return np.asarray(np.where(logits < 0, decay, 1) / (1 + decay), np.float32)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
