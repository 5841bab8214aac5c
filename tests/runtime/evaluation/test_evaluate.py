"""Accuracy on a labelled folder, counted by hand; models beside one another, on worse pictures and by groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from clipedge.classify import Classifier
from clipedge.errors import UsageError
from clipedge.evaluation.answers import answer_folder
from clipedge.evaluation.corruptions import Condition
from clipedge.evaluation.evaluate import compare, evaluate, robustness
from clipedge.evaluation.intervals import accuracy, paired_difference, wilson_interval
from clipedge.folders import read_folder
from clipedge.images.pixels import Images, open_rgb
from clipedge.prompts.bank import PromptBank

# In a test picture the red value is the answer and the green value the second choice.
LABELS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def read_answer(images: Images) -> npt.NDArray[np.float32]:
    """An encoder that answers what is painted on the picture."""
    assert isinstance(images, list)
    rows = []
    for image in images:
        red, green, _ = open_rgb(image).getpixel((0, 0))  # type: ignore[misc]
        row = np.zeros(len(LABELS))
        row[green], row[red] = 0.5, 1
        rows.append(row / np.linalg.norm(row))
    return np.array(rows, np.float32)


CLASSIFIER = Classifier(
    read_answer, PromptBank(np.eye(7, dtype=np.float32), LABELS, ("{}",), 10.0, 0.0, "softmax", "space")
)


def paint(folder: Path, truth: str, answers: list[tuple[str, str]]) -> None:
    (folder / truth).mkdir(parents=True, exist_ok=True)
    for number, (first, second) in enumerate(answers):
        color = (LABELS.index(first), LABELS.index(second), 0)
        PIL.Image.new("RGB", (4, 4), color).save(folder / truth / f"{number}.png")


def test_counts_are_those_made_by_hand(tmp_path: Path) -> None:
    paint(tmp_path, "ant", [("ant", "bee"), ("ant", "bee"), ("bee", "ant")])
    paint(tmp_path, "fox", [("dog", "gnu"), ("dog", "fox"), ("bee", "fox"), ("fox", "bee")])
    found = evaluate(CLASSIFIER, read_folder(tmp_path))
    assert found.pictures == 7
    assert found.top1 == pytest.approx(3 / 7)
    assert {name: (item.right, item.pictures) for name, item in found.per_class.items()} == {
        "ant": (2, 3),
        "fox": (1, 4),
    }
    assert found.per_class["fox"].interval == wilson_interval(1, 4)
    assert found.confusions[0] == ("fox", "dog", 2)
    assert set(found.confusions[1:]) == {("ant", "bee", 1), ("fox", "bee", 1)}
    # Labels without weight tie, and the earlier one goes first: "fox" is sixth where it is neither choice.
    assert found.top5 == pytest.approx(6 / 7)
    assert found.interval == wilson_interval(3, 7)
    assert found.unreadable == ()


def test_an_unreadable_picture_is_left_out_and_named(tmp_path: Path) -> None:
    paint(tmp_path, "ant", [("ant", "bee"), ("bee", "ant")])
    (tmp_path / "ant" / "00-broken.png").write_bytes((tmp_path / "ant" / "0.png").read_bytes()[:40])
    found = evaluate(CLASSIFIER, read_folder(tmp_path))
    assert found.pictures == 2
    assert found.per_class == {"ant": accuracy(np.array([True, False]))}
    (line,) = found.unreadable
    assert "00-broken.png" in line


def test_progress_reaches_the_total_even_when_the_last_picture_is_unreadable(tmp_path: Path) -> None:
    paint(tmp_path, "ant", [("ant", "bee"), ("ant", "bee")])
    (tmp_path / "ant" / "9.png").write_bytes(b"none")
    paint(tmp_path, "bee", [("bee", "ant")] * 16)
    seen: list[int] = []
    evaluate(CLASSIFIER, read_folder(tmp_path), seen.append)
    assert seen == sorted(set(seen))
    assert seen[-1] == 19


def test_a_folder_without_one_readable_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "0.png").write_bytes(b"none")
    with pytest.raises(UsageError, match=r"none of the 1 pictures can be read; the first: .*0\.png"):
        evaluate(CLASSIFIER, read_folder(tmp_path))


def test_a_class_that_is_no_label_is_refused(tmp_path: Path) -> None:
    paint(tmp_path, "wolf", [("dog", "ant")])
    with pytest.raises(UsageError, match="'wolf' are no labels of the classifier"):
        evaluate(CLASSIFIER, read_folder(tmp_path))


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "stray.png")
    with pytest.raises(UsageError, match="one sub-folder for each class"):
        evaluate(CLASSIFIER, read_folder(tmp_path))


def test_all_right_and_all_wrong(tmp_path: Path) -> None:
    paint(tmp_path / "right", "ant", [("ant", "bee")] * 3)
    paint(tmp_path / "wrong", "ant", [("bee", "cat")] * 3)
    right, wrong = (evaluate(CLASSIFIER, read_folder(tmp_path / name)) for name in ("right", "wrong"))
    assert (right.top1, right.top5, right.confusions) == (1.0, 1.0, ())
    assert (wrong.top1, wrong.confusions) == (0.0, (("ant", "bee", 3),))


def always(label: str) -> Classifier:
    """A classifier that answers the same to everything."""
    row = np.eye(len(LABELS), dtype=np.float32)[LABELS.index(label)]
    return replace(CLASSIFIER, encode_image=lambda images: np.tile(row, (len(list(images)), 1)))


def test_models_are_compared_picture_by_picture_and_group_by_group(tmp_path: Path) -> None:
    paint(tmp_path, "ant", [("ant", "bee"), ("bee", "ant"), ("ant", "bee")])
    paint(tmp_path, "bee", [("bee", "ant")])
    (tmp_path / "ant" / "0.png").write_bytes(b"none")
    folder = read_folder(tmp_path)
    answers = answer_folder([CLASSIFIER, always("ant")], folder)
    found = compare(["reader", "ant sayer"], answers, {"light": ("day", "day", "", "night")})
    assert answers.right(0).tolist() == [False, True, True]
    assert answers.right(1).tolist() == [True, True, False]
    assert found.differences == (paired_difference(answers.right(0), answers.right(1)),)
    assert [item.top1 for item in found.evaluations] == [pytest.approx(2 / 3)] * 2
    reader, sayer = (audit["light"] for audit in found.groups)
    # The unreadable picture, of group "day", is not there; the third one belongs to no group.
    assert {name: (item.right, item.pictures) for name, item in reader.groups.items()} == {
        "day": (0, 1),
        "night": (1, 1),
    }
    assert (reader.best, reader.worst, reader.ungrouped) == ("night", "day", 1)
    assert (sayer.best, sayer.worst) == ("day", "night")


def test_worse_pictures_are_the_same_for_every_model_and_every_run(tmp_path: Path) -> None:
    paint(tmp_path, "ant", [("ant", "bee")] * 18)
    seen: list[list[bytes]] = [[], [], []]

    def watcher(place: int) -> Classifier:
        def watch(images: Images) -> npt.NDArray[np.float32]:
            seen[place] += [open_rgb(image).tobytes() for image in images]  # type: ignore[union-attr]
            return np.eye(len(LABELS), dtype=np.float32)[np.zeros(len(list(images)), np.intp)]  # type: ignore[arg-type]

        return replace(CLASSIFIER, encode_image=watch)

    conditions = (Condition("noise", 1), Condition("contrast", 3))
    answers = answer_folder([watcher(0), watcher(1)], read_folder(tmp_path), conditions)
    answer_folder([watcher(2)], read_folder(tmp_path), conditions)
    assert seen[0] == seen[1] == seen[2]
    assert answers.corrupted.shape == (2, 2, 18)
    assert len(set(seen[0])) > 18  # one picture 18 times, with noise of its own every time
    found = robustness(answers)
    assert [(item.corruption, item.severity) for item in found] == list(conditions)
    assert all(item.accuracies[0].right == 18 and item.differences[0].value == 0 for item in found)


def test_models_with_other_labels_are_not_compared(tmp_path: Path) -> None:
    paint(tmp_path, "ant", [("ant", "bee")])
    fewer = replace(CLASSIFIER, bank=replace(CLASSIFIER.bank, labels=LABELS[::-1]))
    with pytest.raises(UsageError, match="compared on the same labels"):
        answer_folder([CLASSIFIER, fewer], read_folder(tmp_path))
