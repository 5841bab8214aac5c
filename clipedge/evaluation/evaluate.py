"""Accuracy of classifiers on a labelled folder: as a whole, by class, beside one another, and on worse pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clipedge.classify import Classifier
from clipedge.evaluation.answers import Answers, answer_folder
from clipedge.evaluation.groups import GroupAudit, audit_groups
from clipedge.evaluation.intervals import Accuracy, Difference, accuracy, paired_difference, wilson_interval
from clipedge.folders import PictureFolder

__all__ = ["Comparison", "Evaluation", "Robustness", "compare", "evaluate", "robustness", "summarise"]


@dataclass(frozen=True)
class Evaluation:
    """Zero-shot accuracy over ``pictures`` readable pictures.

    ``interval`` is Wilson's 95 % interval of ``top1``. ``per_class`` has the accuracy on each class's pictures.
    ``confusions`` are (class, answer, count), the most frequent first. ``unreadable`` has a line a picture left out.
    """

    pictures: int
    top1: float
    interval: tuple[float, float]
    top5: float
    per_class: dict[str, Accuracy]
    confusions: tuple[tuple[str, str, int], ...]
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class Robustness:
    """Models on one kind of worse pictures: their accuracies, and the first one's minus each of the others'."""

    corruption: str
    severity: int
    accuracies: tuple[Accuracy, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Comparison:
    """Models beside one another: ``evaluations`` and ``groups`` have one entry for each.

    ``differences`` are the first one's accuracy minus that of each other one, paired by picture. ``groups`` map the
    columns of a table of groups to what was found, ``corruptions`` are the kinds of worse pictures, if any were asked.
    """

    models: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    differences: tuple[Difference, ...]
    groups: tuple[dict[str, GroupAudit], ...]
    corruptions: tuple[Robustness, ...]


def evaluate(
    classifier: Classifier, pictures: PictureFolder, progress: Callable[[int], object] = lambda done: None
) -> Evaluation:
    """Classify every picture of a labelled folder; ``progress`` is called with the number done.

    Raises UsageError as ``answers.answer_folder`` does.
    """
    return summarise(answer_folder([classifier], pictures, progress=progress), 0)


def summarise(answers: Answers, model: int) -> Evaluation:
    """One of the models on the pictures as they are."""
    labels, truths, ranks = answers.labels, answers.truths, answers.ranks[model]
    right = answers.right(model)
    wrong_pairs, counts = np.unique(np.stack([truths, ranks[:, 0]])[:, ~right], axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return Evaluation(
        pictures=len(truths),
        top1=float(right.mean()),
        interval=wilson_interval(int(right.sum()), len(right)),
        top5=float((ranks == truths[:, None]).any(axis=1).mean()),
        per_class={labels[label]: accuracy(right[truths == label]) for label in np.unique(truths)},
        confusions=tuple((labels[wrong_pairs[0, i]], labels[wrong_pairs[1, i]], int(counts[i])) for i in order),
        unreadable=answers.unreadable,
    )


def compare(
    models: Sequence[str], answers: Answers, columns: Mapping[str, tuple[str, ...]] | None = None
) -> Comparison:
    """Everything that the answers of the ``models`` say; ``columns`` are of ``groups.read_groups``."""
    rights = [answers.right(model) for model in range(len(models))]
    return Comparison(
        models=tuple(models),
        evaluations=tuple(summarise(answers, model) for model in range(len(models))),
        differences=tuple(paired_difference(rights[0], right) for right in rights[1:]),
        groups=tuple(audit_groups(right, answers.pictures, columns or {}) for right in rights),
        corruptions=robustness(answers),
    )


def robustness(answers: Answers) -> tuple[Robustness, ...]:
    """All models under each condition."""
    rights = answers.corrupted == answers.truths
    return tuple(
        Robustness(
            *condition,
            tuple(accuracy(right) for right in rights[:, place]),
            tuple(paired_difference(rights[0, place], right) for right in rights[1:, place]),
        )
        for place, condition in enumerate(answers.conditions)
    )
