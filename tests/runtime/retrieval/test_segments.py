"""Rows across files are what was written there, however they are read, and a file that shrinks is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clipedge.errors import BundleError
from clipedge.retrieval.segments import Segments

ROWS = np.array([22, 0, 6, 7, 8, 13, 14, 22, 1])


def written(folder: Path) -> tuple[Segments, NDArray[np.float16]]:
    """23 rows in four files of 7."""
    vectors = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float16)
    segments = Segments(folder, 1, 7, 5)
    for start in (0, 10, 12):  # across the ends of files
        segments.write(start, vectors[start : {0: 10, 10: 12, 12: 23}[start]])
    return segments, vectors


@pytest.mark.parametrize("has_pread", [True, False])
def test_rows_are_read_as_they_were_written(tmp_path: Path, has_pread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    segments, vectors = written(tmp_path)
    if not has_pread:
        monkeypatch.delattr(os, "pread")
    rows = segments.open(23)
    np.testing.assert_array_equal(np.concatenate(rows.maps), vectors)
    np.testing.assert_array_equal(rows.take(ROWS), vectors[ROWS])
    assert rows.take(ROWS[:0]).shape == (0, 5)
    for path in tmp_path.iterdir():
        path.unlink()
    np.testing.assert_array_equal(rows.take(ROWS), vectors[ROWS])


def test_a_file_that_is_cut_off_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    segments, vectors = written(tmp_path)
    rows = segments.open(23)
    with segments.path(3).open("r+b") as file:
        file.truncate(9)
    np.testing.assert_array_equal(rows.take(ROWS[1:7]), vectors[ROWS[1:7]])
    with pytest.raises(BundleError, match="was cut off"):
        rows.take(ROWS)


def test_descriptors_are_closed_with_the_rows(tmp_path: Path) -> None:
    segments, _ = written(tmp_path)
    rows = segments.open(23)
    descriptors = list(rows.descriptors)
    assert len(descriptors) == 4
    del rows
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
