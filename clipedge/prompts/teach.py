"""Few-shot teaching: a class is added to a prompt bank by example pictures, without text tower and training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError
from clipedge.prompts.bank import PromptBank, check_labels
from clipedge.prompts.taught import MAX_EXAMPLES, Taught, TaughtClass, is_unit, taught_row

__all__ = ["forget", "teach"]

Floats = npt.NDArray[np.float32]

SAME_PICTURE = 1 - 1e-6  # a cosine above this is float32's noise


def teach(bank: PromptBank, label: str, examples: Floats, mean_image: Floats) -> PromptBank:
    """The bank with ``label`` taught by ``examples`` (K, D) float32, unit image embeddings of the bank's space.

    A label that the bank has keeps its place, and its text as far as the examples agree with it; one that was taught
    before gets these examples in addition; another one is appended. All other rows stay bit for bit as they are.
    ``mean_image`` (D,) is the mean embedding of pictures of all kinds (``Clip.mean_image``); a bank that was
    taught before goes on with its own. How the row is made: ``taught.taught_row``.

    Raises UsageError for a label that is no text or one of the negatives, for no examples, more than ``MAX_EXAMPLES``
    of one class, two of the same picture, another width, and for a bank without another label or with thresholds.
    """
    check_labels([label, *bank.negatives])
    _check_without_thresholds(bank)
    width = bank.label_embeds.shape[1]
    taught = bank.taught or Taught((), np.asarray(mean_image, np.float32))
    if examples.ndim != 2 or examples.shape[1:] != (width,) or taught.mean_image.shape != (width,):
        raise UsageError(
            f"examples are image embeddings (N, {width}) and their mean ({width},), as the bank's labels are; found "
            f"{list(examples.shape)} and {list(taught.mean_image.shape)}"
        )
    if not is_unit(examples):
        raise UsageError("examples are image embeddings of length 1, as Clip.encode_image gives them; these are not")
    known = taught.find(label)
    text_row = known.text_row if known else _row(bank, label)
    together = np.asarray(np.concatenate([known.examples, examples]) if known else examples, np.float32)
    _check_examples(label, together, len(together) - len(examples))
    row = taught_row(together, _other_texts(bank, label), text_row, taught.mean_image)
    one = TaughtClass(label, together, text_row)
    classes = tuple(one if old is known else old for old in taught.classes) + (() if known else (one,))
    new = replace(bank, taught=replace(taught, classes=classes))
    if label in bank.labels:
        return replace(new, label_embeds=_with_row(bank, label, row))
    return replace(new, labels=(*bank.labels, label), label_embeds=np.concatenate([bank.label_embeds, row[None]]))


def forget(bank: PromptBank, label: str) -> PromptBank:
    """The bank as if ``label`` had never been taught: bit for bit, whatever was taught before or after.

    Raises UsageError for a label that was not taught, and for a bank with thresholds.
    """
    _check_without_thresholds(bank)
    known = bank.taught.find(label) if bank.taught else None
    if bank.taught is None or known is None:
        names = ", ".join(one.label for one in bank.taught.classes) if bank.taught else ""
        raise UsageError(f"{label!r} was not taught by examples; taught are: {names or 'none'}")
    left = tuple(one for one in bank.taught.classes if one is not known)
    new = replace(bank, taught=replace(bank.taught, classes=left) if left else None)
    if known.text_row is not None:
        return replace(new, label_embeds=_with_row(bank, label, known.text_row))
    place = bank.labels.index(label)
    return replace(
        new,
        labels=bank.labels[:place] + bank.labels[place + 1 :],
        label_embeds=np.delete(bank.label_embeds, place, axis=0),
    )


def _check_without_thresholds(bank: PromptBank) -> None:
    if bank.rule is not None and bank.rule.thresholds:
        raise UsageError(
            "the bank has thresholds, which were fitted for its labels as they are; teach and forget before "
            "`clipedge prompts --fit`, with a bank that was not fitted"
        )


def _check_examples(label: str, examples: Floats, before: int) -> None:
    if len(examples) == before:
        raise UsageError(f"no pictures of {label!r}: give 1 to {MAX_EXAMPLES}")
    if len(examples) > MAX_EXAMPLES:
        already = f", and {before} taught before" if before else ""
        raise UsageError(
            f"a class is taught by at most {MAX_EXAMPLES} pictures, found {len(examples) - before} of {label!r}"
            f"{already}: choose those that differ most, or forget the label first"
        )
    same = np.argwhere(np.triu(examples @ examples.T, 1) > SAME_PICTURE)
    if len(same):
        first, second = (_name(int(index), before) for index in same[0])
        raise UsageError(f"{second} of {label!r} is the same as {first}: it would only be counted twice; leave it out")


def _name(index: int, before: int) -> str:
    return f"picture {index - before + 1}" if index >= before else "a picture taught before"


def _other_texts(bank: PromptBank, label: str) -> Floats:
    """The rows (L, D) of all labels but this one as they were before anything was taught: the order does not matter.

    Negatives are among them: the more texts, the better they say in which directions labels differ.
    """
    taught = {one.label: one.text_row for one in bank.taught.classes} if bank.taught else {}
    rows = [taught.get(name, row) for name, row in zip(bank.labels, bank.label_embeds, strict=True) if name != label]
    negatives = () if bank.negative_embeds is None else tuple(bank.negative_embeds)
    texts = [*(row for row in rows if row is not None), *negatives]
    if not texts:
        raise UsageError(
            f"{label!r} would be the only label with a text: examples say what a class is only beside another one; "
            "make the bank with at least one more label, such as what is seen when it is not there"
        )
    return np.stack(texts)


def _row(bank: PromptBank, label: str) -> Floats | None:
    return np.array(bank.label_embeds[bank.labels.index(label)]) if label in bank.labels else None


def _with_row(bank: PromptBank, label: str, row: Floats) -> Floats:
    rows = np.array(bank.label_embeds)
    rows[bank.labels.index(label)] = row
    return rows
