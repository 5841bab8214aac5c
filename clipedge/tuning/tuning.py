"""Tune a bank on a few labelled pictures: choose its templates, then its label embeddings; keep only what helps.

Both are judged one after the other by nested cross-validation. Whatever answers a held-out picture was fitted on the
other folds alone, down to how far the fit goes, which folds within them decide. What does not raise the accuracy with
the whole of its 95 % interval above 0 is left out of the bank. (Context vectors, as in CoOp, arXiv 2109.01134, are
trained through the text tower. That needs torch, and is not done here.)

The interval takes pictures for independent of each other: frames of one scene, spread over the folds, let a gain seem
surer than it is. Thresholds are to be fitted on other pictures: a tuned bank is too sure of those it was tuned on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError
from clipedge.evaluation.intervals import paired_difference
from clipedge.prompts.bank import PromptBank
from clipedge.tuning.candidates import Candidate, LabelledEmbeds, mean_log_loss, right_answers
from clipedge.tuning.label_probe import probe_path
from clipedge.tuning.template_choice import template_path
from clipedge.tuning.tuned import LABEL_EMBEDDINGS, TEMPLATES, Tuned

__all__ = ["Trial", "Tuning", "check_tuning", "tune_bank"]

FOLDS = 5
FEWEST = 10  # pictures: 2 in each fold
FEWEST_OF_LABEL = 2  # so that a label whose picture is held out has another one to be tuned on

Floats = npt.NDArray[np.float64]
Path = Callable[[LabelledEmbeds, Floats], list[Candidate]]  # pictures, rows to start from -> ever bolder candidates


@dataclass(frozen=True)
class Trial:
    """One thing that was tried: ``TEMPLATES`` or ``LABEL_EMBEDDINGS``.

    ``accuracy`` is the share of right answers (before, after) on held-out pictures, ``interval`` the 95 % interval of
    its gain, paired by picture. ``template_counts`` is how often each template is in the ensemble, ``shrinkage`` how
    strongly label embeddings are held back to the text; both None where leaving all as it is was best.
    """

    name: str
    accuracy: tuple[float, float]
    interval: tuple[float, float]
    template_counts: tuple[int, ...] | None
    shrinkage: float | None
    kept: bool


@dataclass(frozen=True)
class Tuning:
    """``pictures`` that were used, in so many ``folds``; ``accuracy`` on held-out ones, (before, after) what was kept.

    ``left_out`` counts pictures of none of the labels that a bank without negatives cannot answer.
    """

    pictures: int
    left_out: int
    folds: int
    trials: tuple[Trial, ...]
    accuracy: tuple[float, float]


def tune_bank(
    bank: PromptBank,
    image_embeds: npt.NDArray[np.float32],
    truths: npt.NDArray[np.int64],
    text_embeds: npt.NDArray[np.float32] | None = None,
) -> tuple[PromptBank, Tuning]:
    """The bank with what helped, or as it was, and the report.

    ``image_embeds`` (N, D) are pictures of the bank's labels ``truths`` (N,), -1 for pictures of none of them, which
    are right where a negative is nearest. ``text_embeds`` (labels + negatives, templates, D) are the bank's texts in
    each of its templates (``prompts.template_embeds``); without them, or with one template, there are none to choose
    from. A chosen template is in the bank's ``templates`` as often as it counts. Negatives share in the choice of
    templates, and are not tuned themselves.

    Raises UsageError as ``check_tuning`` does, and for too few pictures of a label or in all: what tuning costs a label
    without pictures would not be measured.
    """
    check_tuning(bank)
    pictures = _usable(bank, image_embeds, truths)
    held = _folds(pictures.truths)
    fitted = [*(np.setdiff1d(np.arange(len(pictures.truths)), fold) for fold in held), np.concatenate(held)]
    paths: dict[str, Path] = {}
    if text_embeds is not None and text_embeds.shape[1] > 1:
        texts = text_embeds.astype(np.float64)
        paths[TEMPLATES] = lambda some, start: template_path(some, start, texts)
    paths[LABEL_EMBEDDINGS] = probe_path

    start = [Candidate(_rows(bank))] * len(fitted)  # one for each fold, and the last for the bank
    current, trials = start, list[Trial]()
    for name, path in paths.items():
        tried = [_fit(path, pictures.at(places), old.rows) for places, old in zip(fitted, current, strict=True)]
        trials.append(_judge(name, pictures, held, current, tried))
        if trials[-1].kept:
            current = tried
    before, after = (float(_held_out(pictures, held, rows).mean()) for rows in (start, current))
    tuning = Tuning(len(pictures.truths), len(truths) - len(pictures.truths), FOLDS, tuple(trials), (before, after))
    kept = tuple(trial.name for trial in trials if trial.kept)
    if not kept:
        return bank, tuning
    tuned = Tuned(kept, tuning.pictures, (before, after))
    return replace(_with(bank, current[-1].rows, trials), tuned=tuned), tuning


def check_tuning(bank: PromptBank) -> None:
    """What is known before a picture is read.

    Raises UsageError for a bank that was fitted, taught or tuned before, each of which rests on the rows as they are,
    and for one without a positive scale.
    """
    if bank.logit_scale <= 0:
        raise UsageError(f"a bank's logit scale is above 0, found {bank.logit_scale}: make the bank again")
    before = {"fitted": bank.rule, "taught by examples": bank.taught, "tuned": bank.tuned}
    done = [name for name, part in before.items() if part is not None]
    if done:
        raise UsageError(
            f"the bank was {' and '.join(done)} already, with its label embeddings as they are; tune a bank as it was "
            "made from its texts, and teach and fit it afterwards"
        )


def _usable(bank: PromptBank, image_embeds: npt.NDArray[np.float32], truths: npt.NDArray[np.int64]) -> LabelledEmbeds:
    usable = np.flatnonzero((truths >= 0) | bool(bank.negatives))
    counts = np.bincount(truths[truths >= 0], minlength=len(bank.labels))
    few = [f"{counts[i]} of {label!r}" for i, label in enumerate(bank.labels) if counts[i] < FEWEST_OF_LABEL]
    if few or len(usable) < FEWEST:
        raise UsageError(
            f"tuning needs {FEWEST_OF_LABEL} pictures or more of every label, and {FEWEST} in all; found "
            f"{', '.join(few[:5]) or f'{len(usable)} in all'}: add some, or leave the label out"
        )
    return LabelledEmbeds(image_embeds[usable].astype(np.float64), truths[usable], len(bank.labels), bank.logit_scale)


def _rows(bank: PromptBank) -> Floats:
    parts = [bank.label_embeds] if bank.negative_embeds is None else [bank.label_embeds, bank.negative_embeds]
    return np.concatenate(parts).astype(np.float64)


def _folds(truths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.intp]]:
    """Places of the pictures of each fold: every label's are shuffled, and dealt to the folds in turn."""
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(np.flatnonzero(truths == label)) for label in np.unique(truths)])
    return [np.sort(order[fold::FOLDS]) for fold in range(FOLDS)]


def _fit(path: Path, pictures: LabelledEmbeds, start: Floats) -> Candidate:
    """The candidate as far along the path as is best by cross-validation: most right answers, then least log loss."""
    places = np.arange(len(pictures.truths))
    scores = []
    for fold in _folds(pictures.truths):
        others, held = pictures.at(np.setdiff1d(places, fold)), pictures.at(fold)
        rows = [candidate.rows for candidate in path(others, start)]
        scores.append([(right_answers(held, one).sum(), len(fold) * mean_log_loss(held, one)) for one in rows])
    hits, losses = np.sum(scores, axis=0).T
    return path(pictures, start)[int(np.lexsort((losses, -hits))[0])]


def _judge(
    name: str,
    pictures: LabelledEmbeds,
    held: list[npt.NDArray[np.intp]],
    before: list[Candidate],
    after: list[Candidate],
) -> Trial:
    """What the candidates ``after`` change on the pictures of their held-out folds."""
    old, new = _held_out(pictures, held, before), _held_out(pictures, held, after)
    interval = paired_difference(new, old).interval
    setting = after[-1].setting
    return Trial(
        name,
        (float(old.mean()), float(new.mean())),
        interval,
        setting if isinstance(setting, tuple) else None,
        setting if isinstance(setting, float) else None,
        kept=setting is not None and interval[0] > 0,
    )


def _held_out(
    pictures: LabelledEmbeds, held: list[npt.NDArray[np.intp]], candidates: list[Candidate]
) -> npt.NDArray[np.bool_]:
    """(N,): whether each picture is answered right by the candidate that was fitted without its fold."""
    right = np.empty(len(pictures.truths), np.bool_)
    for fold, candidate in zip(held, candidates[: len(held)], strict=True):
        right[fold] = right_answers(pictures.at(fold), candidate.rows)
    return right


def _with(bank: PromptBank, rows: Floats, trials: list[Trial]) -> PromptBank:
    """The bank with other rows, and with the templates that were chosen for them."""
    labels, negatives = np.split(rows.astype(np.float32), [len(bank.labels)])
    counts = next((trial.template_counts for trial in trials if trial.kept and trial.template_counts), None)
    weighted = zip(bank.templates, counts or [1] * len(bank.templates), strict=True)
    templates = tuple(template for template, count in weighted for _ in range(count))
    negative_embeds = negatives if bank.negatives else None
    return replace(bank, label_embeds=labels, negative_embeds=negative_embeds, templates=templates)
