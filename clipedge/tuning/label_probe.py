"""Label embeddings tuned on pictures: a linear probe that starts at the texts and is held back to them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clipedge.tuning.candidates import Candidate, LabelledEmbeds, normalised

__all__ = ["probe_path"]

Floats = npt.NDArray[np.float64]

# A text counts as much as this multiple of its label's pictures while they are all answered wrong. With the first the
# rows hardly leave the texts, with the last the pictures alone decide.
SHRINKAGES = (16.0, 4.0, 1.0, 0.25, 0.0625, 0.015625)
STEPS = 60  # at most, for each of them, from where the stronger one ended
ENOUGH = 1e-4  # a step that lowers the loss by no more than this share of it is the last


def probe_path(pictures: LabelledEmbeds, start: Floats) -> list[Candidate]:
    """``start`` left alone, then with its label rows tuned on ``pictures``, ever less shrunken to ``start``.

    A linear probe with zero-shot initialisation and a penalty on the distance to the text's prototypes
    (Silva-Rodriguez et al. 2024, "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models", arXiv
    2312.12730). The paper weighs that penalty for each class by a rule; here it has one weight for all, for
    cross-validation to choose. Rows keep length 1, as in a bank, and negatives stay as they are.
    """
    path, rows = [Candidate(start)], start
    for shrinkage in SHRINKAGES:
        rows = _descend(pictures, start, rows, shrinkage)
        path.append(Candidate(rows, shrinkage))
    return path


def _descend(pictures: LabelledEmbeds, texts: Floats, rows: Floats, shrinkage: float) -> Floats:
    """Gradient descent on the unit sphere from ``rows``; a step that would go up is halved, so that none ever does."""
    step = 2 / (pictures.scale + 2 * shrinkage)
    loss, slope = _penalised(pictures, texts, rows, shrinkage)
    for _ in range(STEPS):
        moved = np.concatenate([normalised(rows[: pictures.labels] - step * slope), rows[pictures.labels :]])
        new_loss, new_slope = _penalised(pictures, texts, moved, shrinkage)
        if new_loss >= loss:
            step /= 2
            continue
        last = loss - new_loss <= ENOUGH * loss
        rows, loss, slope, step = moved, new_loss, new_slope, 1.5 * step
        if last:
            break
    return rows


def _penalised(pictures: LabelledEmbeds, texts: Floats, rows: Floats, shrinkage: float) -> tuple[float, Floats]:
    """The penalised cross-entropy and its gradient (labels, D) along the sphere, both divided by scale / labels.

    The penalty of a row of length 1 is half its squared distance to the text: 1 - row . text.
    """
    labels, weight = pictures.labels, pictures.labels / len(pictures.truths)
    logits = pictures.scale * (pictures.embeds @ rows.T)
    fits = np.arange(len(rows)) == pictures.truths[:, None]
    fits[pictures.truths < 0, labels:] = True
    shares, total = _softmax(logits)
    wanted, fitting = _softmax(np.where(fits, logits, -np.inf))
    kept, held = rows[:labels], texts[:labels]
    loss = weight * float((total - fitting).sum()) / pictures.scale + shrinkage * (labels - float((kept * held).sum()))
    slope = weight * ((shares - wanted)[:, :labels].T @ pictures.embeds) - shrinkage * held
    return loss, slope - (slope * kept).sum(axis=1, keepdims=True) * kept


def _softmax(logits: Floats) -> tuple[Floats, Floats]:
    """Of (N, R): shares (N, R) that sum to 1, and the log of the sum of exponentials (N,)."""
    top = logits.max(axis=1, keepdims=True)
    weights = np.exp(logits - top)
    sums = weights.sum(axis=1, keepdims=True)
    return weights / sums, (top + np.log(sums))[:, 0]
