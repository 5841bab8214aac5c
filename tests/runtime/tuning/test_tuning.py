"""Tuning on embeddings whose truth is known: what helps is kept, what does not is refused, nothing is peeked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clipedge.classify import Classifier
from clipedge.decisions.rule import DecisionRule
from clipedge.errors import UsageError
from clipedge.prompts.bank import PromptBank, template_embeds
from clipedge.prompts.taught import Taught
from clipedge.tuning.candidates import LabelledEmbeds, mean_log_loss, right_answers
from clipedge.tuning.label_probe import SHRINKAGES, _penalised, probe_path
from clipedge.tuning.template_choice import ROUNDS, template_path
from clipedge.tuning.tuned import LABEL_EMBEDDINGS, TEMPLATES, Tuned
from clipedge.tuning.tuning import tune_bank

Floats = npt.NDArray[np.float32]
Truths = npt.NDArray[np.int64]
DIM, LABELS, SCALE = 32, 5, 30.0


def unit(rows: npt.NDArray[Any]) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


CENTRES = unit(np.random.default_rng(1).standard_normal((LABELS + 2, DIM)))  # of the labels, and of two other things
APART = unit(np.random.default_rng(2).standard_normal(DIM))  # images lie apart from texts


def pictures(count: int, seed: int, noise: float = 0.25, kinds: int = LABELS) -> tuple[Floats, Truths]:
    """``count`` of each of so many kinds; those beyond the labels are of none."""
    rng = np.random.default_rng(seed)
    truths = np.repeat(np.arange(kinds), count)
    embeds = unit(APART + CENTRES[truths] + noise * rng.standard_normal((len(truths), DIM)))
    return embeds, np.where(truths < LABELS, truths, -1).astype(np.int64)


def texts(template_noise: Sequence[float], names: int = LABELS, seed: int = 3) -> Floats:
    """(names, templates, D): a template of noise 0 says what the pictures show, one of much noise something else."""
    rng = np.random.default_rng(seed)
    noise = np.array(template_noise)[:, None] * rng.standard_normal((names, len(template_noise), DIM))
    return unit(CENTRES[:names, None] - APART + noise)


def bank_of(text_embeds: Floats) -> PromptBank:
    rows, negatives = unit(text_embeds.mean(axis=1)), len(text_embeds) - LABELS
    return PromptBank(
        rows[:LABELS],
        tuple(f"label {i}" for i in range(LABELS)),
        tuple(f"template {i} {{}}" for i in range(text_embeds.shape[1])),
        SCALE,
        0.0,
        "softmax",
        "space",
        negatives=tuple(f"negative {i}" for i in range(negatives)),
        negative_embeds=rows[LABELS:] if negatives else None,
    )


def accuracy(bank: PromptBank, embeds: Floats, truths: Truths) -> float:
    answers = Classifier(lambda _: embeds, bank).predict([])
    return float((answers == np.array(bank.labels)[truths]).mean())


# ---- what is kept ------------------------------------------------------------------------------------------------


def test_good_templates_are_chosen_among_bad_ones_and_weigh_as_often_as_they_are_there() -> None:
    embeds = texts([0.0, 2.0, 2.0, 2.0, 0.1, 2.0])
    plain = bank_of(embeds)
    tuned, tuning = tune_bank(plain, *pictures(20, seed=0, noise=0.4), embeds)
    choice = tuning.trials[0]
    assert (choice.name, choice.kept) == (TEMPLATES, True)
    assert choice.template_counts is not None
    assert choice.template_counts[0] > 0
    assert sum(choice.template_counts) == len(tuned.templates)
    assert [tuned.templates.count(template) for template in plain.templates] == list(choice.template_counts)
    assert tuned.tuned is not None
    assert TEMPLATES in tuned.tuned.kept
    new, truths = pictures(200, seed=9, noise=0.4)
    assert accuracy(tuned, new, truths) > accuracy(plain, new, truths) + 0.1
    if tuned.tuned.kept == (TEMPLATES,):  # then the rows are those of a bank made with these templates
        weights = np.array(choice.template_counts, np.float64)[None, :, None]
        np.testing.assert_allclose(tuned.label_embeds, unit((weights * embeds).sum(axis=1)), atol=1e-6)


def test_label_embeddings_of_wrong_texts_are_tuned() -> None:
    wrong = bank_of(texts([1.2]))
    tuned, tuning = tune_bank(wrong, *pictures(16, seed=0))
    (probe,) = tuning.trials
    assert (probe.name, probe.kept, probe.template_counts) == (LABEL_EMBEDDINGS, True, None)
    assert probe.shrinkage in SHRINKAGES
    assert tuned.tuned == Tuned((LABEL_EMBEDDINGS,), 16 * LABELS, tuning.accuracy)
    assert tuned.templates == wrong.templates
    np.testing.assert_allclose(np.linalg.norm(tuned.label_embeds, axis=1), 1, atol=1e-6)
    new, truths = pictures(200, seed=9)
    # The accuracy that the report promises is the one on new pictures.
    assert accuracy(wrong, new, truths) == pytest.approx(tuning.accuracy[0], abs=0.12)
    assert accuracy(tuned, new, truths) == pytest.approx(tuning.accuracy[1], abs=0.12)
    assert accuracy(tuned, new, truths) > accuracy(wrong, new, truths) + 0.1


def test_what_is_right_already_is_left_alone() -> None:
    embeds = texts([0.0, 0.0, 0.0])
    plain = bank_of(embeds)
    tuned, tuning = tune_bank(plain, *pictures(16, seed=0, noise=0.1), embeds)
    assert tuned is plain
    assert [trial.kept for trial in tuning.trials] == [False, False]
    assert tuning.accuracy[0] == tuning.accuracy[1] == 1


def test_from_shuffled_truths_nothing_is_learned() -> None:
    """With more directions than pictures a probe answers all it was trained on; held out, it is as good as chance."""
    embeds = texts([0.5, 0.5, 0.5])
    kept = 0
    for seed in range(4):
        images, truths = pictures(4, seed)
        tuned, tuning = tune_bank(bank_of(embeds), images, np.random.default_rng(seed).permutation(truths), embeds)
        kept += tuned.tuned is not None
        assert all(trial.accuracy[1] <= 0.5 for trial in tuning.trials)
    assert kept == 0


def test_no_loss_is_kept() -> None:
    """Texts nearly as good as can be, and few pictures: whatever is kept is as good on many new ones."""
    new, new_truths = pictures(400, seed=99, noise=0.5)
    for seed in range(5):
        embeds = texts([0.05, 0.1, 0.05, 0.1], seed=seed)
        plain = bank_of(embeds)
        tuned, _ = tune_bank(plain, *pictures(4, seed, noise=0.5), embeds)
        assert accuracy(tuned, new, new_truths) >= accuracy(plain, new, new_truths)


def test_the_same_pictures_give_the_same_bank() -> None:
    embeds = texts([0.0, 2.0, 1.0])
    first, second = (tune_bank(bank_of(embeds), *pictures(8, seed=0), embeds) for _ in range(2))
    assert first[1] == second[1]
    np.testing.assert_array_equal(first[0].label_embeds, second[0].label_embeds)


def test_negatives_take_part() -> None:
    embeds = texts([0.0, 2.0, 2.0], names=LABELS + 2)
    plain = bank_of(embeds)
    images, truths = pictures(16, seed=0, kinds=LABELS + 2)
    tuned, tuning = tune_bank(plain, images, truths, embeds)
    assert (tuning.pictures, tuning.left_out) == (16 * (LABELS + 2), 0)
    assert tuning.trials[0].template_counts is not None
    assert tuned.negative_embeds is not None
    weights = np.array(tuning.trials[0].template_counts, np.float64)[None, :, None]
    np.testing.assert_allclose(tuned.negative_embeds, unit((weights * embeds).sum(axis=1))[LABELS:], atol=1e-6)

    classifiers = [Classifier(lambda _: images, bank) for bank in (plain, tuned)]
    expected = [None if truth < 0 else f"label {truth}" for truth in truths]
    before, after = (np.mean([a == b for a, b in zip(c.decide([]), expected, strict=True)]) for c in classifiers)
    assert before == pytest.approx(tuning.accuracy[0])  # the plain bank has seen none of the folds
    assert after > before


def test_without_negatives_pictures_of_nothing_known_are_left_out() -> None:
    images, truths = pictures(8, seed=0, kinds=LABELS + 2)
    known = truths >= 0
    bank = bank_of(texts([1.2]))
    (tuned, tuning), (alone, same) = tune_bank(bank, images, truths), tune_bank(bank, images[known], truths[known])
    assert (tuning.left_out, same.left_out) == (16, 0)
    assert dataclasses.replace(tuning, left_out=0) == same
    np.testing.assert_array_equal(tuned.label_embeds, alone.label_embeds)


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rule": DecisionRule(1.0, (), False, "fp32")}, "fitted already"),
        ({"taught": Taught((), np.zeros(DIM, np.float32))}, "taught by examples already"),
        ({"tuned": Tuned((TEMPLATES,), 10, (0.5, 0.6))}, "tuned already"),
        ({"logit_scale": 0.0}, "above 0, found 0.0"),
    ],
)
def test_a_bank_that_rests_on_its_rows_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        tune_bank(dataclasses.replace(bank_of(texts([0.0])), **changes), *pictures(4, seed=0))


def test_too_few_pictures_are_refused() -> None:
    bank, (images, truths) = bank_of(texts([0.0])), pictures(4, seed=0)
    with pytest.raises(UsageError, match="2 pictures or more of every label, and 10 in all; found 1 of 'label 2'"):
        some = np.delete(np.arange(len(truths)), [8, 9, 10])
        tune_bank(bank, images[some], truths[some])
    with pytest.raises(UsageError, match="found 0 of 'label 0'"):
        tune_bank(bank, images[4:], truths[4:])
    few = dataclasses.replace(bank, labels=bank.labels[:2], label_embeds=bank.label_embeds[:2])
    with pytest.raises(UsageError, match="found 8 in all"):
        tune_bank(few, images[:8], truths[:8])


# ---- the parts ---------------------------------------------------------------------------------------------------


def problem(noise: float = 0.25, count: int = 6) -> LabelledEmbeds:
    images, truths = pictures(count, seed=5, noise=noise, kinds=LABELS + 2)
    return LabelledEmbeds(images.astype(np.float64), truths, LABELS, SCALE)


def test_log_loss_is_that_of_a_softmax_over_labels_and_negatives() -> None:
    some, rows = problem(), texts([0.5], names=LABELS + 2)[:, 0].astype(np.float64)
    losses = []
    for image, truth in zip(some.embeds, some.truths, strict=True):
        weights = np.exp(SCALE * rows @ image)
        losses.append(-np.log((weights[LABELS:].sum() if truth < 0 else weights[truth]) / weights.sum()))
    assert mean_log_loss(some, rows) == pytest.approx(np.mean(losses))


def test_the_probes_loss_and_gradient() -> None:
    some, texts_, shrinkage = problem(), texts([0.5], names=LABELS + 2)[:, 0].astype(np.float64), 0.7
    rows = unit(texts_ + 0.1 * np.random.default_rng(0).standard_normal(texts_.shape)).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def reference(rows: npt.NDArray[np.float64]) -> float:
        distance = ((rows[:LABELS] - texts_[:LABELS]) ** 2).sum() / 2
        return LABELS * mean_log_loss(some, rows) / SCALE + shrinkage * distance

    loss, slope = _penalised(some, texts_, rows, shrinkage)
    assert loss == pytest.approx(reference(rows), abs=1e-6)
    np.testing.assert_allclose((slope * rows[:LABELS]).sum(axis=1), 0, atol=1e-12)  # along the sphere
    rng = np.random.default_rng(1)
    for _ in range(5):
        along = rng.standard_normal((LABELS, DIM))
        along -= (along * rows[:LABELS]).sum(axis=1, keepdims=True) * rows[:LABELS]
        ahead, behind = (
            np.concatenate([moved / np.linalg.norm(moved, axis=1, keepdims=True), rows[LABELS:]])
            for moved in (rows[:LABELS] + 1e-5 * along, rows[:LABELS] - 1e-5 * along)
        )
        numerical = (reference(ahead) - reference(behind)) / 2e-5
        assert (slope * along).sum() == pytest.approx(numerical, rel=1e-5, abs=1e-8)


def test_the_less_it_is_held_back_the_farther_a_probe_goes_from_the_text() -> None:
    some, start = problem(), texts([1.0], names=LABELS + 2)[:, 0].astype(np.float64)
    path = probe_path(some, start)
    assert [candidate.setting for candidate in path] == [None, *SHRINKAGES]
    np.testing.assert_array_equal(path[0].rows, start)
    cosines = [(candidate.rows * start)[:LABELS].sum(axis=1).mean() for candidate in path]
    assert (np.diff(cosines) < 0).all()
    assert cosines[1] > 0.99
    losses = [mean_log_loss(some, candidate.rows) for candidate in path]
    assert (np.diff(losses) < 0).all()
    assert right_answers(some, path[-1].rows).mean() == 1
    for candidate in path:
        np.testing.assert_array_equal(candidate.rows[LABELS:], start[LABELS:])
    for shrinkage, candidate in zip(SHRINKAGES, path[1:], strict=True):
        before, after = (
            np.linalg.norm(_penalised(some, start, rows, shrinkage)[1]) for rows in (start, candidate.rows)
        )
        assert after < 0.1 * before  # near the minimum, where it is 0


def test_each_round_adds_the_template_with_which_most_answers_are_right() -> None:
    some = problem(noise=0.5)
    embeds = texts([0.8, 0.6, 0.7, 0.9], names=LABELS + 2).astype(np.float64)
    start = unit(embeds.mean(axis=1)).astype(np.float64)
    path = template_path(some, start, embeds)
    assert path[0].setting is None
    np.testing.assert_array_equal(path[0].rows, start)
    before = np.zeros(4, np.int64)
    for number, candidate in enumerate(path[1:], start=1):
        counts = np.array(candidate.setting)
        assert (counts - before).tolist().count(1) == (counts.sum() - before.sum()) == 1
        assert counts.sum() == number
        ensembles = [unit(np.tensordot(embeds, before + one, ([1], [0]))).astype(np.float64) for one in np.eye(4)]
        hits = [int(right_answers(some, rows).sum()) for rows in ensembles]
        assert hits[int((counts - before).argmax())] == max(hits)
        assert right_answers(some, candidate.rows).sum() == max(hits)
        before = counts
    assert len(path) == ROUNDS + 1


def test_the_texts_of_a_bank_in_each_template() -> None:
    def embed(prompts: Sequence[str]) -> Floats:
        return unit(np.stack([np.random.default_rng(list(text.encode())).standard_normal(8) for text in prompts]))

    bank = PromptBank(
        np.eye(2, 8, dtype=np.float32), ("cat", "dog"), ("a {}.", "{}"), 1.0, 0.0, "softmax", "space",
        synonyms={"cat": ("cat", "kitten")}, negatives=("wall",), negative_embeds=np.eye(1, 8, dtype=np.float32),
    )  # fmt: skip
    found = template_embeds(embed, bank)
    assert found.shape == (3, 2, 8)
    np.testing.assert_allclose(found[0, 1], embed(["cat", "kitten"]).mean(axis=0), atol=1e-7)
    np.testing.assert_array_equal(found[1, 0], embed(["a dog."])[0])
    np.testing.assert_array_equal(found[2, 1], embed(["wall"])[0])


# ---- the record --------------------------------------------------------------------------------------------------

RECORD = {"kept": ["templates"], "pictures": 10, "accuracy": [0.5, 1]}


def test_a_record_is_read() -> None:
    assert Tuned.from_document(RECORD) == Tuned((TEMPLATES,), 10, (0.5, 1.0))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "expected an object"),
        (RECORD | {"kept": []}, "'templates', 'label embeddings' or both"),
        (RECORD | {"kept": ["label embeddings", "templates"]}, "or both"),
        (RECORD | {"kept": "templates"}, "or both"),
        (RECORD | {"pictures": 0}, "a number of pictures"),
        (RECORD | {"pictures": True}, "a number of pictures"),
        (RECORD | {"accuracy": [0.5]}, "two shares"),
        (RECORD | {"accuracy": [0.5, float("nan")]}, "two shares"),
        (RECORD | {"accuracy": ["0", "1"]}, "two shares"),
        ({"kept": ["templates"]}, "pictures"),
    ],
)
def test_a_record_that_cannot_be_right_is_refused(document: Any, message: str) -> None:
    with pytest.raises((ValueError, KeyError), match=message):
        Tuned.from_document(document)
