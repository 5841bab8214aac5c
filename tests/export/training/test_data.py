"""Training data: read, checked and hashed before anything is trained."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipedge.calibration.data import read_pictures
from clipedge.errors import UsageError
from clipedge.export.training import data as module
from clipedge.export.training.data import (
    check_captions,
    hold_out,
    pictures_sha256,
    scene_count,
    training_pictures,
)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_a_tar_has_captions(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "pairs.tar",
        {"a.png": b"1", "a.txt": b"a cat,\n asleep ", "b.jpg": b"2", "b.txt": b"a dog", "c.txt": b"x"},
    )
    pictures = training_pictures(tar, tmp_path, 64)
    assert pictures.captions == [("a cat, asleep",), ("a dog",)]
    check_captions(pictures)
    assert read_pictures(tar).captions is None  # which only who asks for them gets


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"x" * 10_001])
def test_a_caption_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "pairs.tar", {"a.png": b"1", "a.txt": content})
    with pytest.raises(UsageError, match=r"'a\.txt' should hold a caption"):
        training_pictures(tar, tmp_path, 64)
    assert len(read_pictures(tar)) == 1


def test_pictures_without_captions_are_named(tmp_path: Path, folder_of: Callable[[int], Path]) -> None:
    tar = write_tar(tmp_path / "pairs.tar", {"a.png": b"1", "a.txt": b"a cat", "b.png": b"2", "c.png": b"3"})
    with pytest.raises(UsageError, match=r"2 of 3 pictures have no caption, the first of them .*'b\.png'"):
        check_captions(training_pictures(tar, tmp_path, 64))
    with pytest.raises(UsageError, match=r"has no captions.*--losses images"):
        check_captions(training_pictures(folder_of(2), tmp_path, 64))


def test_the_hash_follows_content_names_captions_and_not_the_folder(pairs: Path, tmp_path: Path) -> None:
    found = pictures_sha256(read_pictures(pairs))
    copy = Path(shutil.copytree(pairs.parent, tmp_path / "elsewhere")) / pairs.name
    assert pictures_sha256(read_pictures(copy)) == found
    text = copy.read_text(encoding="utf-8")
    copy.write_text(text.replace(" ", "  ", 1), encoding="utf-8")
    assert pictures_sha256(read_pictures(copy)) == found  # the same caption
    copy.write_text(text.rstrip() + " too\n", encoding="utf-8")
    assert pictures_sha256(read_pictures(copy)) != found
    copy.write_text(text, encoding="utf-8")
    picture = copy.parent / "3.png"
    picture.write_bytes(picture.read_bytes() + b"\0")
    changed = pictures_sha256(read_pictures(copy))
    assert changed != found
    picture.unlink()
    assert pictures_sha256(read_pictures(copy)) not in (found, changed)


def test_every_tenth_picture_validates_and_none_does_both(folder_of: Callable[[int], Path]) -> None:
    folder = folder_of(23)
    training, held_out = hold_out(read_pictures(folder), folder, None, 64)
    assert len(held_out) == 2 and len(training) == 21
    assert not {str(item) for item in training.items} & {str(item) for item in held_out.items}
    again, exam = hold_out(read_pictures(folder), folder, folder, 64)
    assert len(again) == len(exam) == 23


def test_too_few_to_hold_out_is_an_error(folder_of: Callable[[int], Path]) -> None:
    folder = folder_of(5)
    with pytest.raises(UsageError, match=r"holds 5 pictures.*20 or more, or a --validation"):
        hold_out(read_pictures(folder), folder, None, 64)


def test_empty_and_missing_data_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no pictures"):
        training_pictures(tmp_path / "empty", tmp_path, 64)
    with pytest.raises(UsageError, match="there is no folder"):
        training_pictures(tmp_path / "missing", tmp_path, 64)
    with pytest.raises(UsageError, match="no pictures"):
        training_pictures(write_tar(tmp_path / "a.tar", {"a.txt": b"a cat"}), tmp_path, 64)


def test_scenes_are_drawn_once_and_have_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = training_pictures("scenes:6", tmp_path, 32)
    assert len(first) == 6 and first.captions is not None and all(len(texts) == 6 for texts in first.captions)
    check_captions(first)
    monkeypatch.setattr(module, "draw_pool", None)
    again = training_pictures("scenes:6", tmp_path, 32)
    assert pictures_sha256(first) == pictures_sha256(again)
    _, held_out = hold_out(first, "scenes:6", None, 16)
    assert held_out.labels is not None and len(held_out.class_names) == 120
    (path,) = tmp_path.glob("scenes-*")
    for damage in (b"", path.read_bytes()[:100], path.read_bytes()[:-4]):
        path.write_bytes(damage)
        with pytest.raises(UsageError, match="delete it"):
            training_pictures("scenes:6", tmp_path, 32)
    np.save(path, np.zeros((6, 32, 32, 3), np.float32))
    with pytest.raises(UsageError, match="something else"):
        training_pictures("scenes:6", tmp_path, 32)


def test_scenes_are_told_from_paths() -> None:
    assert scene_count("scenes") == 20_000 and scene_count("scenes:12") == 12
    assert scene_count("scenes/") is None and scene_count("my-scenes") is None
    with pytest.raises(UsageError, match="one scene or more"):
        scene_count("scenes:0")
