"""What classifiers answer on a labelled folder: to the pictures as they are, and to the same ones made worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image

from clipedge.classify import Classifier
from clipedge.errors import ImageError, UsageError
from clipedge.evaluation.corruptions import Condition, corrupt, shrink_to
from clipedge.folders import PictureFolder
from clipedge.images.pixels import open_rgb
from clipedge.parallel import cores, parallel_map

__all__ = ["Answers", "answer_folder"]

Places = npt.NDArray[np.intp]
BATCH = 16  # pictures in memory at once, times the number of conditions
CHOICES = 5  # of the labels, that are kept


@dataclass(frozen=True, eq=False)
class Answers:
    """Of M classifiers with the same ``labels`` to the N pictures that can be read.

    ``ranks`` (M, N, up to 5) are the best labels first, ``corrupted`` (M, C, N) the best label under each of
    ``conditions``, and ``truths`` (N,) the right ones: indices of labels. ``pictures`` (N,) are places in the folder.
    ``unreadable`` has a line for each picture that was left out.
    """

    labels: tuple[str, ...]
    ranks: Places
    conditions: tuple[Condition, ...]
    corrupted: Places
    truths: Places
    pictures: Places
    unreadable: tuple[str, ...]

    def right(self, model: int) -> npt.NDArray[np.bool_]:
        """(N,): whether a classifier's best label is the right one."""
        return np.asarray(self.ranks[model, :, 0] == self.truths)


def answer_folder(
    classifiers: Sequence[Classifier],
    pictures: PictureFolder,
    conditions: Sequence[Condition] = (),
    side: int = 224,
    progress: Callable[[int], object] = lambda done: None,
) -> Answers:
    """Ask every classifier about every picture, and again under each condition, all about the very same pixels.

    A picture with a shorter side above ``side`` is scaled down to that before it is corrupted. ``progress`` is called
    with the number of pictures done. Raises UsageError if the folder has no class sub-folders, if a class is not
    among the labels, if classifiers differ in their labels, or if no picture can be read.
    """
    truths = _truths(classifiers, pictures)
    ranks: list[Places] = []
    corrupted: list[Places] = []
    readable: list[int] = []
    unreadable: list[str] = []
    for start in range(0, len(pictures.paths), BATCH):
        numbers = list(range(start, min(start + BATCH, len(pictures.paths))))
        found, kept, lines = _ranks(classifiers, pictures.paths, numbers)
        unreadable += lines
        if kept:
            ranks.append(found)
            readable += kept
            if conditions:
                corrupted.append(_corrupted(classifiers, [pictures.paths[i] for i in kept], kept, conditions, side))
        progress(numbers[-1] + 1)
    if not ranks:
        raise UsageError(f"none of the {len(pictures.paths)} pictures can be read; the first: {unreadable[0]}")
    empty = np.empty((len(classifiers), 0, len(readable)), np.intp)
    return Answers(
        labels=classifiers[0].labels,
        ranks=np.concatenate(ranks, axis=1),
        conditions=tuple(conditions),
        corrupted=np.concatenate(corrupted, axis=2) if corrupted else empty,
        truths=truths[readable],
        pictures=np.array(readable, np.intp),
        unreadable=tuple(unreadable),
    )


def _truths(classifiers: Sequence[Classifier], pictures: PictureFolder) -> Places:
    if pictures.labels is None:
        raise UsageError(
            f"{pictures.folder} has pictures outside of sub-folders; accuracy needs one sub-folder for each class, "
            "named for it"
        )
    labels = classifiers[0].labels
    if any(classifier.labels != labels for classifier in classifiers):
        raise UsageError("models are compared on the same labels, and these have different ones: name them by --labels")
    unknown = [name for name in pictures.class_names if name not in labels]
    if unknown:
        raise UsageError(
            f"the sub-folders {', '.join(map(repr, unknown[:5]))} are no labels of the classifier "
            f"({', '.join(map(repr, labels[:5]))}…): name sub-folders and labels alike"
        )
    return np.array([labels.index(name) for name in pictures.class_names], np.intp)[pictures.labels]


def _ranks(
    classifiers: Sequence[Classifier], paths: Sequence[Path], numbers: list[int]
) -> tuple[Places, list[int], list[str]]:
    """The best labels (M, n, k) of a batch's n pictures that can be read, their numbers, and a line for each other."""
    try:
        return _best(classifiers, [paths[i] for i in numbers]), numbers, []
    except ImageError as error:
        if len(numbers) == 1:
            return np.empty((len(classifiers), 0, 0), np.intp), [], [str(error)]
    singles = [_ranks(classifiers, paths, [number]) for number in numbers]
    found = [ranks for ranks, kept, _ in singles if kept]
    return (
        np.concatenate(found, axis=1) if found else singles[0][0],
        [number for _, kept, _ in singles for number in kept],
        [line for _, _, lines in singles for line in lines],
    )


def _best(classifiers: Sequence[Classifier], images: Sequence[Path] | Sequence[PIL.Image.Image]) -> Places:
    probabilities = np.stack([classifier.predict_proba(list(images)) for classifier in classifiers])
    return np.asarray(np.argsort(-probabilities, axis=-1, kind="stable")[..., :CHOICES])


def _corrupted(
    classifiers: Sequence[Classifier], paths: list[Path], numbers: list[int], conditions: Sequence[Condition], side: int
) -> Places:
    """(M, C, n): the best labels of n pictures under every condition."""
    pictures = parallel_map(lambda path: shrink_to(open_rgb(path), side), paths, cores())
    answers = []
    for condition in conditions:
        worse = parallel_map(partial(_corrupt_one, condition), list(zip(pictures, numbers, strict=True)), cores())
        answers.append(_best(classifiers, worse)[..., 0])
    return np.stack(answers, axis=1)


def _corrupt_one(condition: Condition, item: tuple[PIL.Image.Image, int]) -> PIL.Image.Image:
    return corrupt(item[0], condition, item[1])
