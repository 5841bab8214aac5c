"""The page of an evaluation has what was found, and is safe with any name."""

from __future__ import annotations

import numpy as np

from clipedge.evaluation.answers import Answers
from clipedge.evaluation.corruptions import Condition
from clipedge.evaluation.evaluate import compare
from clipedge.evaluation.page import MOST_BARS, eval_page

HOSTILE = "<script>alert('1')</script>"
LABELS = (HOSTILE, *(f"class {i}" for i in range(79)))


def answers(conditions: tuple[Condition, ...] = ()) -> Answers:
    """Two models, of which the second is wrong about every fourth of 160 pictures."""
    truths = np.arange(160) % 80
    second = np.where(np.arange(160) % 4 == 0, (truths + 1) % 80, truths)
    ranks = np.stack([truths, second])[..., None]
    corrupted = np.broadcast_to(np.stack([second, truths])[:, None], (2, len(conditions), 160))
    return Answers(LABELS, ranks, conditions, corrupted, truths, np.arange(160), ("x.png: <cut off>",))


def test_one_model_has_its_classes_and_confusions() -> None:
    found = compare([HOSTILE], answers())
    page = eval_page("<photos>", found)
    assert "<script" not in page and "&lt;photos&gt;" in page
    assert page.count("<svg ") == 1
    assert page.count("<rect ") == MOST_BARS
    assert f"The {MOST_BARS} weakest of 80 classes" in page
    assert "100.00 %" in page and " minus " not in page
    assert "No picture was taken for another class" in page
    assert "x.png: &lt;cut off&gt;" in page


def test_models_stand_side_by_side_under_every_condition_and_in_every_group() -> None:
    conditions = (Condition("blur", 1), Condition("blur", 2), Condition("blur", 3), Condition("jpeg", 1))
    groups = tuple(HOSTILE if i % 4 == 0 else "other" for i in range(160))
    found = compare(["one", "two"], answers(conditions), {"kind & colour": groups})
    page = eval_page("photos", found)
    assert page.count("<svg ") == 1 + 1 + 6
    assert "kind &amp; colour" in page and "<script" not in page
    assert "two: from &lt;script&gt;" in page and "+100.00 [" in page
    assert "one minus two: +25.00 [" in page
    assert "75.00 %" in page and "+25.00 [" in page  # without corruption
    assert "-25.00 [" in page  # with it
