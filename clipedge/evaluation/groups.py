"""Groups of pictures from a table, and how far a model's accuracy differs between them: a bias audit.

The table is a CSV file in UTF-8 with a header. Its column ``path`` has pictures as they lie under the evaluated
folder ("dog/004.jpg"), every other column says to which group of its kind a picture belongs:

    path,light,camera
    dog/004.jpg,night,left
    dog/005.jpg,day,

An empty cell, like a picture without a row, belongs to no group of that kind; how many there are is reported.
Groups that show different things differ for that reason as well: compare such as show the same.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError
from clipedge.evaluation.intervals import Accuracy, Difference, accuracy, in_points, unpaired_difference
from clipedge.folders import PictureFolder

__all__ = ["GroupAudit", "audit_groups", "gap_sentence", "read_groups"]

PATH = "path"
MOST_BYTES = 256 * 2**20  # of a table: millions of pictures


@dataclass(frozen=True)
class GroupAudit:
    """Accuracy of each group of one kind, the best and the worst of them, and the ``gap`` between these two.

    The gap's interval allows for the two having been picked out of all pairs of groups. With fewer than two groups
    there is no gap. ``ungrouped`` counts the pictures that belong to none.
    """

    groups: dict[str, Accuracy]
    ungrouped: int
    best: str
    worst: str
    gap: Difference | None


def read_groups(file: str | os.PathLike[str], pictures: PictureFolder) -> dict[str, tuple[str, ...]]:
    """The table's columns, each with the group of every picture of the folder in its order, "" for none.

    Raises UsageError for a file that is no such table, has a picture twice, or names one that is not in the folder.
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"--groups {path}: there is no such file; it is a table with the columns path and group")
    if path.stat().st_size > MOST_BYTES:
        raise UsageError(f"{path}: expected at most {MOST_BYTES:,} bytes, found {path.stat().st_size:,}: split it")
    known = {item.relative_to(pictures.folder).as_posix(): place for place, item in enumerate(pictures.paths)}
    rows: dict[int, list[str]] = {}
    header: list[str] = []
    for number, row in _rows(path):
        if not header:
            header = _checked_header(path, row)
            continue
        if len(row) != len(header):
            raise UsageError(f"{path}, line {number}: expected {len(header)} cells, found {len(row)}: correct it")
        name = row[header.index(PATH)].removeprefix("./")
        if name not in known:
            raise UsageError(
                f"{path}, line {number}: {name!r:.200} is no picture under {pictures.folder}; paths are as "
                f"{next(iter(known))!r}"
            )
        if known[name] in rows:
            raise UsageError(f"{path}, line {number}: {name!r:.200} is there twice: leave one out")
        rows[known[name]] = row
    if not rows:
        raise UsageError(f"{path} has no rows; it is a table with the columns path and group")
    empty = [""] * len(header)
    return {
        column: tuple(rows.get(place, empty)[index].strip() for place in range(len(known)))
        for index, column in enumerate(header)
        if column != PATH
    }


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, with the numbers of their lines."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no table of comma-separated values in UTF-8 ({error}): write it again") from None


def _checked_header(path: Path, row: list[str]) -> list[str]:
    header = [cell.strip() for cell in row]
    if PATH not in header or len(header) < 2 or len(set(header)) < len(header) or "" in header:
        raise UsageError(
            f"{path}: expected a header with the column path and one or more others, such as path,group; found "
            f"{','.join(row)!r:.80}"
        )
    return header


def audit_groups(
    right: npt.NDArray[np.bool_], pictures: npt.NDArray[np.intp], columns: Mapping[str, tuple[str, ...]]
) -> dict[str, GroupAudit]:
    """One audit for each column. ``right`` (N,) are answers, ``pictures`` (N,) the places of theirs in the columns."""
    return {name: _audit(right, np.array(groups)[pictures]) for name, groups in columns.items()}


def _audit(right: npt.NDArray[np.bool_], groups: npt.NDArray[np.str_]) -> GroupAudit:
    found = {str(name): accuracy(right[groups == name]) for name in np.unique(groups) if name}
    ungrouped = int((groups == "").sum())
    if not found:
        return GroupAudit({}, ungrouped, "", "", None)
    best = max(found, key=lambda name: found[name].share)
    worst = min(found, key=lambda name: found[name].share)
    pairs = len(found) * (len(found) - 1) // 2
    gap = unpaired_difference(found[best], found[worst], pairs) if pairs else None
    return GroupAudit(found, ungrouped, best, worst, gap)


def gap_sentence(audit: GroupAudit) -> str:
    """The gap in words."""
    if audit.gap is None:
        return "fewer than two groups, so there is no gap"
    verdict = "beyond noise" if audit.gap.beyond_noise else "within noise"
    return f"from {audit.worst} (worst) to {audit.best} (best) {in_points(audit.gap)} points, {verdict}"
