"""Accuracy on a labelled folder, counted by hand; Wilson's interval against published and recomputed numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from clipedge.classify import Classifier
from clipedge.errors import UsageError
from clipedge.evaluate import evaluate, paired_interval, wilson_interval
from clipedge.folders import read_folder
from clipedge.images import Images, open_rgb
from clipedge.prompts import PromptBank

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
    assert found.per_class == {"ant": (2, 3), "fox": (1, 4)}
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
    assert found.per_class == {"ant": (1, 2)}
    (line,) = found.unreadable
    assert "00-broken.png" in line


def test_progress_reaches_the_total_even_when_the_last_picture_is_unreadable(tmp_path: Path) -> None:
    paint(tmp_path, "ant", [("ant", "bee"), ("ant", "bee")])
    (tmp_path / "ant" / "9.png").write_bytes(b"none")
    seen: list[int] = []
    evaluate(CLASSIFIER, read_folder(tmp_path), seen.append)
    assert seen == [1, 2, 3]


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


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (score without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_the_published_table(hits: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(hits, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (3, 7), (50, 100), (1996, 2000), (2000, 2000)])
def test_wilson_bounds_are_where_the_score_test_just_rejects(hits: int, trials: int) -> None:
    """The definition: a bound p has |share - p| = 1.96 sqrt(p (1 - p) / n)."""
    share = hits / trials
    for bound in wilson_interval(hits, trials):
        assert abs(share - bound) == pytest.approx(1.96 * math.sqrt(max(bound * (1 - bound), 0) / trials), abs=1e-9)
        assert 0 <= bound <= 1


def test_a_paired_interval_is_walds_with_half_a_trial_more_in_each_cell() -> None:
    for gained, lost, trials in ((5, 0, 20), (0, 0, 7), (120, 80, 1000), (3, 3, 6)):
        values = [1.0] * gained + [-1.0] * lost + [0.0] * (trials - gained - lost)
        weights = [1.0] * trials + [0.5, 0.5, 1.0]  # half right at first, half at last, and twice half unchanged
        values = np.array([*values, 1.0, -1.0, 0.0])
        mean = np.average(values, weights=weights)
        deviation = math.sqrt(np.average((values - mean) ** 2, weights=weights) / (trials + 2))
        low, high = paired_interval(gained, lost, trials)
        assert (low, high) == pytest.approx((mean - 1.96 * deviation, mean + 1.96 * deviation))
        assert paired_interval(lost, gained, trials) == pytest.approx((-high, -low))


def test_a_paired_interval_of_nothing_changed_has_a_width() -> None:
    assert paired_interval(4, 0, 20)[0] < 0 < paired_interval(5, 0, 20)[0]  # where the sign test is at 0.06 and 0.03
    assert paired_interval(2, 0, 2)[0] >= -1
    low, high = paired_interval(0, 0, 50)
    assert low == -high < 0
