"""Accuracy of a classifier on a labelled folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clipedge.classify import Classifier
from clipedge.errors import ImageError, UsageError
from clipedge.folders import PictureFolder

__all__ = ["Evaluation", "evaluate", "paired_interval", "wilson_interval"]


@dataclass(frozen=True)
class Evaluation:
    """Zero-shot accuracy over ``pictures`` readable pictures.

    ``interval`` is Wilson's 95 % interval of ``top1``. ``per_class`` maps a class to (right, pictures).
    ``confusions`` are (class, answer, count), the most frequent first. ``unreadable`` has a line a picture left out.
    """

    pictures: int
    top1: float
    interval: tuple[float, float]
    top5: float
    per_class: dict[str, tuple[int, int]]
    confusions: tuple[tuple[str, str, int], ...]
    unreadable: tuple[str, ...]


def evaluate(
    classifier: Classifier, pictures: PictureFolder, progress: Callable[[int], object] = lambda done: None
) -> Evaluation:
    """Classify every picture of a labelled folder; ``progress`` is called with the number done.

    Raises UsageError if the folder has no class sub-folders, if a class is not among the classifier's labels, or if
    no picture can be read.
    """
    truths = _truths(classifier, pictures)
    ranks, readable, unreadable = [], [], []
    for done, path in enumerate(pictures.paths, start=1):
        try:
            probabilities = classifier.predict_proba([path])[0]
        except ImageError as error:
            unreadable.append(str(error))
        else:
            ranks.append(np.argsort(-probabilities, kind="stable")[:5])
            readable.append(done - 1)
        progress(done)
    if not ranks:
        raise UsageError(f"none of the {len(pictures.paths)} pictures can be read; the first: {unreadable[0]}")
    return _summary(classifier.labels, np.stack(ranks), truths[readable], tuple(unreadable))


def _truths(classifier: Classifier, pictures: PictureFolder) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if pictures.labels is None:
        raise UsageError(
            f"{pictures.folder} has pictures outside of sub-folders; accuracy needs one sub-folder for each class, "
            "named for it"
        )
    unknown = [name for name in pictures.class_names if name not in classifier.labels]
    if unknown:
        raise UsageError(
            f"the sub-folders {', '.join(map(repr, unknown[:5]))} are no labels of the classifier "
            f"({', '.join(map(repr, classifier.labels[:5]))}…): name sub-folders and labels alike"
        )
    places = np.array([classifier.labels.index(name) for name in pictures.class_names], np.int64)
    return np.asarray(places[pictures.labels])


def _summary(
    labels: tuple[str, ...],
    ranks: np.ndarray[tuple[int, int], np.dtype[np.intp]],
    truths: np.ndarray[tuple[int], np.dtype[np.int64]],
    unreadable: tuple[str, ...],
) -> Evaluation:
    right = ranks[:, 0] == truths
    wrong_pairs, counts = np.unique(np.stack([truths, ranks[:, 0]])[:, ~right], axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return Evaluation(
        pictures=len(truths),
        top1=float(right.mean()),
        interval=wilson_interval(int(right.sum()), len(right)),
        top5=float((ranks == truths[:, None]).any(axis=1).mean()),
        per_class={
            labels[label]: (int(right[truths == label].sum()), int((truths == label).sum()))
            for label in np.unique(truths)
        },
        confusions=tuple((labels[wrong_pairs[0, i]], labels[wrong_pairs[1, i]], int(counts[i])) for i in order),
        unreadable=unreadable,
    )


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson 1927); honest near 0 and 1, unlike the normal one."""
    z = 1.96
    share = hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    margin = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return max(centre - margin, 0.0), min(centre + margin, 1.0)  # rounding may step over the end


def paired_interval(gained: int, lost: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of the change of a proportion, of which so many trials became right and wrong.

    Wald's interval with half a trial more in each of the four cells (Agresti and Min 2005, "Simple improved confidence
    intervals for comparing matched proportions"): with few trials Wald's own is too narrow, and of no width for none.
    """
    z, total = 1.96, trials + 2
    centre = (gained - lost) / total
    margin = z * math.sqrt(gained + lost + 1 - total * centre**2) / total
    return max(centre - margin, -1.0), min(centre + margin, 1.0)
