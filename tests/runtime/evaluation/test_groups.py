"""Tables of groups: read as they are meant, refused by line where they are not; gaps that noise explains and others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipedge.errors import UsageError
from clipedge.evaluation.groups import audit_groups, gap_sentence, read_groups
from clipedge.folders import PictureFolder

ROOT = Path("photos")
FOLDER = PictureFolder(ROOT, tuple(ROOT / name for name in ("cat/1.png", "cat/2.png", "dog/1.png")), None, ())


def test_columns_come_in_the_folders_order_whatever_the_tables(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text('light,path,camera\r\nnight,dog/1.png,"left, low"\n\n day ,./cat/1.png,\n', encoding="utf-8-sig")
    assert read_groups(table, FOLDER) == {"light": ("day", "", "night"), "camera": ("", "", "left, low")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,group\ncat/9.png,a\n", r"line 2: 'cat/9.png' is no picture under photos; paths are as 'cat/1.png'"),
        ("path,group\ncat/1.png,a\n./cat/1.png,b\n", "line 3: .* is there twice"),
        ("path,group\ncat/1.png\n", "line 2: expected 2 cells, found 1"),
        ("file,group\ncat/1.png,a\n", "expected a header with the column path"),
        ("path\ncat/1.png\n", "expected a header with the column path and one or more others"),
        ("path,group,group\ncat/1.png,a,b\n", "expected a header"),
        ("path,group\n", "has no rows"),
        ("", "has no rows"),
        ('path,group\ncat/1.png,"a\n', "is no table of comma-separated values"),
        (b"path,group\ncat/1.png,\xff\n", "is no table of comma-separated values in UTF-8"),
    ],
)
def test_what_is_no_table_of_groups_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    table = tmp_path / "groups.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=message):
        read_groups(table, FOLDER)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        read_groups(tmp_path / "groups.csv", FOLDER)


def test_a_gap_is_between_the_best_and_the_worst_group() -> None:
    right = np.array([True] * 95 + [False] * 5 + [True] * 60 + [False] * 40 + [True] * 90 + [False] * 10 + [False])
    groups = ("day",) * 100 + ("night",) * 100 + ("dusk",) * 100 + ("",)
    audit = audit_groups(right, np.arange(301), {"light": groups})["light"]
    assert (audit.best, audit.worst, audit.ungrouped) == ("day", "night", 1)
    assert audit.gap is not None
    assert audit.gap.value == pytest.approx(0.35)
    assert audit.gap.beyond_noise
    assert gap_sentence(audit).startswith("from night (worst) to day (best) +35.00 [")


def test_of_many_groups_without_a_difference_the_extremes_are_seldom_called_one() -> None:
    """20 groups of 50 pictures with one accuracy: the best is far from the worst, by chance alone."""
    rng = np.random.default_rng(3)
    groups = tuple(f"group {i % 20}" for i in range(1000))
    audits = [audit_groups(rng.random(1000) < 0.8, np.arange(1000), {"g": groups})["g"] for _ in range(200)]
    gaps = [audit.gap for audit in audits if audit.gap is not None]
    assert len(gaps) == 200
    assert np.mean([gap.value for gap in gaps]) > 0.15
    assert np.mean([gap.beyond_noise for gap in gaps]) < 0.05


@pytest.mark.parametrize("groups", [("", "", ""), ("a", "a", "")])
def test_fewer_than_two_groups_have_no_gap(groups: tuple[str, ...]) -> None:
    audit = audit_groups(np.array([True, False, True]), np.arange(3), {"g": groups})["g"]
    assert audit.gap is None
    assert "no gap" in gap_sentence(audit)
