"""A folder into an index: resumed, changed pictures replaced, vanished ones removed, unreadable ones named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from clipedge.folders import read_folder
from clipedge.images.pixels import open_rgb
from clipedge.retrieval import indexing as indexing_module
from clipedge.retrieval.index import Index
from clipedge.retrieval.indexing import Indexing, index_folder

SPACE = "a" * 64
COLOURS = ("red", "lime", "blue", "yellow", "aqua", "fuchsia", "white")


class MeanColour:
    """A small, real encoder: a picture's mean colour as a unit vector. Remembers what it was asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, paths: Sequence[Path]) -> NDArray[np.float32]:
        means = [np.asarray(open_rgb(path), np.float32).mean(axis=(0, 1)) + 1 for path in paths]
        self.seen += [path.name for path in paths]
        return np.array([mean / np.linalg.norm(mean) for mean in means], np.float32).reshape(-1, 3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for place, colour in enumerate(COLOURS):
        paint(folder / f"{place % 2}" / f"{colour}.png", colour)
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.create(tmp_path / "index", SPACE, 3)


def paint(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (6, 5), colour).save(path)


def run(index: Index, encode: MeanColour, folder: Path) -> Indexing:
    encode.seen.clear()
    return index_folder(index, encode, read_folder(folder))


def nearest_name(index: Index, colour: str) -> str:
    query = np.array([PIL.Image.new("RGB", (1, 1), colour).getpixel((0, 0))], np.float32) + 1
    return Path(index.search(query, 1)[0][0].key).stem


def test_only_what_is_new_or_changed_is_encoded(index: Index, pictures: Path) -> None:
    encode = MeanColour()
    assert run(index, encode, pictures) == Indexing(7, 0, 0, 0, ())
    assert sorted(encode.seen) == sorted(f"{colour}.png" for colour in COLOURS)
    assert all(nearest_name(index, colour) == colour for colour in COLOURS)

    assert run(index, encode, pictures) == Indexing(0, 0, 7, 0, ())
    assert encode.seen == []

    paint(pictures / "0" / "red.png", "silver")
    os.utime(pictures / "0" / "red.png", ns=(1, 1))
    (pictures / "0" / "blue.png").unlink()
    paint(pictures / "new" / "teal.png", "teal")
    assert run(index, encode, pictures) == Indexing(1, 1, 5, 1, ())
    assert sorted(encode.seen) == ["red.png", "teal.png"]
    assert nearest_name(index, "teal") == "teal"
    assert nearest_name(index, "red") != "red"
    assert {Path(key).stem for key in index} == {*COLOURS, "teal"} - {"blue"}


def test_unreadable_pictures_are_named_and_tried_again(
    index: Index, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing_module, "BATCH", 3)
    encode = MeanColour()
    bad = pictures / "1" / "lime.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:40])
    result = run(index, encode, pictures)
    assert (result.added, len(index)) == (6, 6)
    (line,) = result.unreadable
    assert str(bad) in line
    bad.write_bytes(good)
    assert run(index, encode, pictures) == Indexing(1, 0, 6, 0, ())
    bad.write_bytes(b"")  # what the index knew of it is true no more
    result = run(index, encode, pictures)
    assert (result.added, result.replaced, result.unchanged, result.removed) == (0, 0, 6, 1)
    assert len(result.unreadable) == 1
    assert str(bad) not in index


def test_a_run_that_was_interrupted_is_resumed(index: Index, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing_module, "BATCH", 2)
    encode = MeanColour()
    done: list[tuple[int, int]] = []

    def interrupt(now: int, total: int) -> None:
        done.append((now, total))
        if now == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_folder(index, encode, read_folder(pictures), interrupt)
    assert done == [(2, 7), (4, 7)]
    assert run(index, encode, pictures) == Indexing(3, 0, 4, 0, ())
    assert len(encode.seen) == 3


def test_folders_share_an_index_and_each_run_touches_its_own(
    index: Index, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = MeanColour()
    run(index, encode, pictures)
    paint(tmp_path / "pictures-2" / "navy.png", "navy")  # a name that begins like the other's
    monkeypatch.chdir(tmp_path)
    assert run(index, encode, Path("pictures-2")) == Indexing(1, 0, 0, 0, ())
    assert run(index, encode, Path("pictures")) == Indexing(0, 0, 7, 0, ())
    assert len(index) == 8
    assert str(tmp_path / "pictures-2" / "navy.png") in index
