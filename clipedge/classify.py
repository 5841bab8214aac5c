"""Classifier: images against a prompt bank, with scikit-learn's verbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    logits: npt.NDArray[Any] = bank.logit_scale * (image_embeds @ bank.label_embeds.T) + bank.logit_bias
    if bank.activation == "sigmoid":
        # Half of 1 + tanh(x/2): the logistic function without overflow.
        return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
