"""Classifier: images against a prompt bank, with scikit-learn's verbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError
from clipedge.images import Images
from clipedge.prompts import PromptBank
from clipedge.teach import forget, teach

__all__ = ["Classifier", "probabilities"]


@dataclass(frozen=True)
class Classifier:
    """Zero-shot classification. ``encode_image`` maps images to (N, D) embeddings of the bank's space.

    ``mean_image`` gives the mean embedding (D,) of pictures of all kinds, which teaching needs; ``Clip.classifier``
    puts it here.
    """

    encode_image: Callable[[Images], npt.NDArray[np.float32]]
    bank: PromptBank
    mean_image: Callable[[], npt.NDArray[np.float32]] | None = None

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

    def teach(self, label: str, images: Images) -> Classifier:
        """A classifier that also knows ``label``, by 1 to 16 pictures of it; this one stays as it is.

        A label that is there already gets the pictures in addition to its text and to what taught it before. Save
        ``bank`` to keep what was taught. Raises ImageError naming the picture that cannot be read, and UsageError for
        what ``teach.teach`` refuses.
        """
        if self.mean_image is None:
            raise UsageError("this classifier has no mean_image to teach with; get it by clip.classifier(bank)")
        return replace(self, bank=teach(self.bank, label, self.encode_image(images), self.mean_image()))

    def forget(self, label: str) -> Classifier:
        """A classifier as before ``label`` was taught, bit for bit. Raises UsageError for a label that was not."""
        return replace(self, bank=forget(self.bank, label))


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
