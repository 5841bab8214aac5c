"""Classifier: images against a prompt bank, with scikit-learn's verbs, and decisions that may be "none of these"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clipedge.decisions.rule import DecisionLogits, DecisionRule, accepted, decision_probabilities
from clipedge.errors import UsageError
from clipedge.images.pixels import Images
from clipedge.prompts.bank import PromptBank
from clipedge.prompts.teach import forget, teach

__all__ = ["Classifier", "decision_logits", "probabilities"]


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

    def decide(self, images: Images) -> list[str | None]:
        """The label of each image, or None where it is none of them.

        Raises UsageError for a bank with no negatives and no fitted rule, which has no reason ever to say None, and
        for one whose rule was fitted for several labels to a picture.
        """
        rule = self._rule(multi_label=False)
        if not self.bank.negatives and not rule.thresholds and rule.floor is None:
            raise UsageError(
                'the bank has neither negatives nor thresholds, so nothing is ever "none of these"; make it with '
                "`clipedge prompts --negatives` or --fit, or call predict"
            )
        chosen = accepted(self._logits(images, rule), rule)
        return [self.labels[row.argmax()] if row.any() else None for row in chosen]

    def decide_all(self, images: Images) -> list[tuple[str, ...]]:
        """All labels of each image, every label decided on its own; () where it is none of them.

        Raises UsageError for a softmax model's bank without negatives, and for one whose rule was fitted for one
        label to a picture.
        """
        rule = self._rule(multi_label=True)
        chosen = accepted(self._logits(images, rule), rule)
        return [tuple(label for label, taken in zip(self.labels, row, strict=True) if taken) for row in chosen]

    def decision_proba(self, images: Images) -> npt.NDArray[np.float32]:
        """(N, labels) probabilities that the bank's rule decides by: with its temperature, and against the negatives.

        A row's missing part of 1 is the negatives' share, unless the rule was fitted for several labels to a picture.
        """
        rule = self.bank.rule or self._rule(multi_label=False)
        return np.asarray(decision_probabilities(self._logits(images, rule), rule), np.float32)

    def _rule(self, multi_label: bool) -> DecisionRule:
        rule = self.bank.rule or DecisionRule(1.0, (), multi_label, "")
        if rule.multi_label != multi_label:
            kind, verb = ("several labels", "decide_all") if rule.multi_label else ("one label", "decide")
            raise UsageError(f"the bank's rule was fitted for {kind} to a picture: call {verb}, or fit it again")
        return rule

    def _logits(self, images: Images, rule: DecisionRule) -> DecisionLogits:
        return decision_logits(self.encode_image(images), self.bank, rule.multi_label)

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


def decision_logits(
    image_embeds: npt.NDArray[np.float32], bank: PromptBank, multi_label: bool = False
) -> DecisionLogits:
    """Logits of (N, D) image embeddings for decisions: of one label, or of every label on its own.

    What is nothing are the bank's negatives, its rule's floor, and with ``multi_label`` a sigmoid model's logit of 0.
    """
    empty = np.empty((0, bank.label_embeds.shape[1]), np.float32)
    labels, nothing = (
        bank.logit_scale * np.asarray(image_embeds @ rows.T, np.float64) + bank.logit_bias
        for rows in (bank.label_embeds, empty if bank.negative_embeds is None else bank.negative_embeds)
    )
    if multi_label and bank.activation == "sigmoid":
        nothing = np.concatenate([nothing, np.zeros((len(nothing), 1))], axis=1)
    return DecisionLogits(labels, nothing).with_floor(bank.rule.floor if bank.rule else None)
