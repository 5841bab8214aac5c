"""Teaching: what changes and what may not, undone bit for bit in any order, kept in the bank's file, refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from clipedge.classify import Classifier, probabilities
from clipedge.decisions.rule import DecisionRule
from clipedge.errors import BundleError, UsageError
from clipedge.prompts.bank import PromptBank
from clipedge.prompts.taught import MAX_EXAMPLES
from clipedge.prompts.teach import forget, teach

Floats = npt.NDArray[np.float32]
DIM = 24


def unit(rows: npt.NDArray[Any]) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


@dataclasses.dataclass(frozen=True)
class World:
    """Images and texts of one list of classes, apart from each other across all their differences, as a CLIP's."""

    image_gap: Floats
    text_gap: Floats
    classes: Floats

    def images(self, place: int, count: int, seed: int) -> Floats:
        noise = np.random.default_rng(seed).standard_normal((count, DIM)) * 0.06
        return unit(2 * self.image_gap + self.classes[place] + noise)

    def text(self, place: int) -> Floats:
        return unit(2 * self.text_gap + self.classes[place])

    @property
    def mean_image(self) -> Floats:
        return np.asarray(unit(2 * self.image_gap + self.classes).mean(axis=0), np.float32)


DIRECTIONS = np.linalg.qr(np.random.default_rng(1).standard_normal((DIM, DIM)))[0].astype(np.float32)
WORLD = World(DIRECTIONS[0], DIRECTIONS[1], DIRECTIONS[2:11])
KNOWN = 8  # the ninth class is the new one


def bank(count: int = KNOWN, **changes: Any) -> PromptBank:
    texts = np.stack([WORLD.text(place) for place in range(count)])
    names = tuple(f"thing {place}" for place in range(count))
    return dataclasses.replace(PromptBank(texts, names, ("{}",), 30.0, 0.0, "softmax", "5pace"), **changes)


NEW = WORLD.images(KNOWN, 4, seed=5)


def taught(label: str = "new", examples: Floats = NEW, base: PromptBank | None = None) -> PromptBank:
    return teach(base or bank(), label, examples, WORLD.mean_image)


def file_of(some: PromptBank, folder: Path) -> bytes:
    path = folder / "bank.safetensors"
    some.save(path)
    return path.read_bytes()


# ---- what it does --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, MAX_EXAMPLES])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_new_class_is_recognised_and_the_others_stay(count: int, activation: str) -> None:
    some = taught(examples=WORLD.images(KNOWN, count, seed=6), base=bank(activation=activation, logit_bias=-9.0))
    for place in range(KNOWN + 1):
        answers = probabilities(WORLD.images(place, 50, seed=7), some).argmax(axis=1)
        assert (answers == place).mean() > 0.9
    np.testing.assert_array_equal(some.label_embeds[:KNOWN], bank().label_embeds)
    assert some.labels == (*bank().labels, "new")
    np.testing.assert_allclose(np.linalg.norm(some.label_embeds, axis=1), 1, atol=1e-6)


def test_raw_images_would_not_stand_among_texts() -> None:
    """What the mean image is for: images are nearer to any image than to their own text."""
    raw = unit(NEW.mean(axis=0))
    naive = bank(label_embeds=np.concatenate([bank().label_embeds, raw[None]]), labels=(*bank().labels, "new"))
    assert (probabilities(WORLD.images(0, 50, seed=7), naive).argmax(axis=1) == KNOWN).all()


def test_a_text_that_the_examples_contradict_does_not_count() -> None:
    """The label "thing 3" is there with a text, and the pictures show something else."""
    some = taught("thing 3")
    without = taught("new", base=forget_row(bank(), 3))
    np.testing.assert_allclose(some.label_embeds[3], without.label_embeds[-1], atol=1e-6)


def test_a_text_that_the_examples_agree_with_stays_in_front() -> None:
    some = taught("thing 3", WORLD.images(3, 4, seed=8))
    assert some.labels == bank().labels
    assert some.label_embeds[3] @ bank().label_embeds[3] > 0.98
    assert not np.array_equal(some.label_embeds[3], bank().label_embeds[3])


def forget_row(some: PromptBank, place: int) -> PromptBank:
    keep = [index for index in range(len(some.labels)) if index != place]
    return dataclasses.replace(
        some, labels=tuple(some.labels[index] for index in keep), label_embeds=some.label_embeds[keep]
    )


def test_examples_come_together_whether_given_at_once_or_one_by_one() -> None:
    one_by_one = bank()
    for example in NEW:
        one_by_one = taught(examples=example[None], base=one_by_one)
    np.testing.assert_array_equal(one_by_one.label_embeds, taught().label_embeds)


def test_the_order_of_classes_does_not_matter() -> None:
    first, second = WORLD.images(KNOWN, 3, seed=9), WORLD.images(2, 2, seed=10)
    one = taught("new", first, taught("thing 1", second))
    other = taught("thing 1", second, taught("new", first))
    np.testing.assert_array_equal(one.label_embeds, other.label_embeds)


# ---- undoing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(["new", "thing 1", "newer"])))
def test_what_was_taught_is_forgotten_bit_for_bit_in_any_order(order: tuple[str, ...], tmp_path: Path) -> None:
    some = bank()
    for seed, label in enumerate(["new", "thing 1", "newer", "new"]):
        some = taught(label, WORLD.images(KNOWN, 3, seed=20 + seed), some)
    for label in order:
        some = forget(some, label)
    assert some.taught is None
    assert file_of(some, tmp_path) == file_of(bank(), tmp_path)


def test_forgetting_one_class_leaves_the_others_as_they_were_taught(tmp_path: Path) -> None:
    alone = taught("new")
    both = taught("newer", WORLD.images(0, 2, seed=3), alone)
    assert file_of(forget(both, "newer"), tmp_path) == file_of(alone, tmp_path)


def test_nothing_is_changed_in_place() -> None:
    base = bank()
    before = base.label_embeds.copy()
    forget(taught("thing 1", base=base), "thing 1")
    np.testing.assert_array_equal(base.label_embeds, before)
    assert base.taught is None


def test_only_what_was_taught_is_forgotten() -> None:
    with pytest.raises(UsageError, match="'thing 1' was not taught by examples; taught are: none"):
        forget(bank(), "thing 1")
    with pytest.raises(UsageError, match="taught are: new"):
        forget(taught(), "thing 1")


# ---- keeping -------------------------------------------------------------------------------------------------


def test_a_taught_bank_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    some = taught("thing 1", WORLD.images(1, 2, seed=1), taught())
    written = file_of(some, tmp_path)
    found = PromptBank.load(tmp_path / "bank.safetensors")
    assert file_of(found, tmp_path) == written
    assert found.taught is not None
    assert [one.label for one in found.taught.classes] == ["new", "thing 1"]
    assert file_of(forget(forget(found, "new"), "thing 1"), tmp_path) == file_of(bank(), tmp_path)


def damaged(folder: Path, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
    """The file of a taught bank with another entry for its only class, or other tensors."""
    path = folder / "bank.safetensors"
    taught().save(path)
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["clipedge"])
        parts = {name: file.get_tensor(name) for name in file.keys()} | (tensors or {})  # noqa: SIM118
    header["taught"][0].update(changes)
    path.write_bytes(save({n: p for n, p in parts.items() if p is not None}, {"clipedge": json.dumps(header)}))
    return path


@pytest.mark.parametrize(
    ("tensors", "changes", "message"),
    [
        ({}, {"label": "nowhere"}, "distinct labels of the bank"),
        ({}, {"label": 7}, "distinct labels of the bank"),
        ({}, {"examples": 0}, "1 to 16 examples"),
        ({}, {"examples": 17}, "1 to 16 examples"),
        ({}, {"examples": True}, "1 to 16 examples"),
        ({}, {"examples": 3}, "expected 3 unit vectors"),
        ({}, {"text": True}, "expected 1 unit vectors"),
        ({}, {"text": "yes"}, "true or false"),
        ({"taught_examples": 2 * NEW}, {}, "taught_examples: expected 4 unit vectors"),
        ({"taught_examples": np.full_like(NEW, np.nan)}, {}, "unit vectors"),
        ({"taught_examples": NEW.astype(np.float64)}, {}, "expected float32"),
        ({"taught_examples": None}, {}, "taught_examples"),
        ({"taught_mean_image": np.full(DIM, np.nan, np.float32)}, {}, "taught_mean_image"),
        ({"taught_mean_image": WORLD.mean_image[:5]}, {}, "taught_mean_image"),
        ({"taught_texts": NEW[:, :5]}, {}, "taught_texts"),
    ],
)
def test_a_taught_part_that_cannot_be_right_is_refused(
    tmp_path: Path, tensors: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        PromptBank.load(damaged(tmp_path, tensors, **changes))


# ---- what cannot be taught -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "examples", "message"),
    [
        (" ", NEW, "a text that is not empty"),
        ("new", NEW[:0], "no pictures of 'new'"),
        ("new", WORLD.images(0, 17, seed=1), "at most 16 pictures, found 17 of 'new': choose"),
        ("new", np.concatenate([NEW, NEW[1:2]]), "picture 5 of 'new' is the same as picture 2"),
        ("new", NEW[:, :5], "found .4, 5."),
        ("new", 2 * NEW, "of length 1"),
        ("new", np.full_like(NEW, np.nan), "of length 1"),
    ],
)
def test_examples_that_cannot_be_used_are_refused(label: str, examples: Floats, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        taught(label, examples)


def test_examples_are_counted_together_with_those_before() -> None:
    with pytest.raises(UsageError, match="found 13 of 'new', and 4 taught before"):
        taught(examples=WORLD.images(KNOWN, 13, seed=30), base=taught())
    with pytest.raises(UsageError, match="picture 1 of 'new' is the same as a picture taught before"):
        taught(examples=NEW[2:3], base=taught())


def test_the_only_label_of_a_bank_cannot_be_taught() -> None:
    with pytest.raises(UsageError, match="the only label with a text"):
        taught("thing 0", base=bank(1))
    beside_one = taught(base=bank(1))
    assert (probabilities(NEW, beside_one).argmax(axis=1) == 1).all()
    assert (probabilities(WORLD.images(0, 20, seed=2), beside_one).argmax(axis=1) == 0).all()


def test_a_classifier_made_by_hand_says_what_it_lacks() -> None:
    with pytest.raises(UsageError, match="no mean_image"):
        Classifier(lambda images: NEW, bank()).teach("new", "a.png")


# ---- beside what else a bank may have ------------------------------------------------------------------------


NEGATIVES: dict[str, Any] = {"negatives": ("nothing",), "negative_embeds": WORLD.text(KNOWN)[None]}


def test_negatives_and_a_taught_class_stand_in_one_file(tmp_path: Path) -> None:
    some = taught(base=bank(**NEGATIVES))
    file_of(some, tmp_path)
    loaded = PromptBank.load(tmp_path / "bank.safetensors")
    assert loaded.negatives == ("nothing",) and loaded.labels == some.labels
    assert file_of(forget(loaded, "new"), tmp_path) == file_of(bank(**NEGATIVES), tmp_path)


def test_negatives_say_as_much_about_how_labels_differ_as_labels_do() -> None:
    whole = bank()
    few = dataclasses.replace(
        whole,
        labels=whole.labels[:3],
        label_embeds=whole.label_embeds[:3],
        negatives=whole.labels[3:],
        negative_embeds=whole.label_embeds[3:],
    )
    np.testing.assert_array_equal(taught(base=few).label_embeds[-1], taught(base=whole).label_embeds[-1])


def test_a_negative_cannot_be_taught() -> None:
    with pytest.raises(UsageError, match="nothing"):
        taught("nothing", base=bank(**NEGATIVES))


def test_thresholds_are_fitted_last() -> None:
    rule = DecisionRule(1.0, (0.5,) * (KNOWN + 1), False, "int8.x86")
    fitted = dataclasses.replace(taught(), rule=rule)
    for change in (lambda: taught("newer", WORLD.images(3, 2, seed=1), fitted), lambda: forget(fitted, "new")):
        with pytest.raises(UsageError, match="thresholds, which were fitted for its labels"):
            change()
