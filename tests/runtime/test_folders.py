"""Folders of pictures: what counts as a picture, and what the sub-folders mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipedge.calibration.scenes import CLASS_NAMES, write_folder
from clipedge.errors import UsageError
from clipedge.folders import read_folder


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_flat_folder_has_sorted_pictures_and_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, "b.PNG", "a.jpeg", "c.webp", "notes.txt", "Thumbs.db", "d.json")
    found = read_folder(tmp_path)
    assert [path.name for path in found.paths] == ["a.jpeg", "b.PNG", "c.webp"]
    assert found.labels is None
    assert found.class_names == ()


def test_sub_folders_name_the_classes(tmp_path: Path) -> None:
    touch(tmp_path, "traffic_light/1.png", "traffic_light/night/2.png", "cat/3.jpg", "empty/readme.txt")
    found = read_folder(tmp_path)
    assert found.class_names == ("cat", "traffic light")
    assert found.labels is not None
    truth = {path.name: found.class_names[label] for path, label in zip(found.paths, found.labels, strict=True)}
    assert truth == {"1.png": "traffic light", "2.png": "traffic light", "3.jpg": "cat"}


def test_scenes_written_by_label_are_read_back_with_their_labels(tmp_path: Path) -> None:
    written = write_folder(tmp_path, "test", 12, width=32, height=32, by_label=True)
    found = read_folder(tmp_path)
    assert set(found.paths) == set(written)
    assert found.labels is not None
    assert set(found.class_names) <= set(CLASS_NAMES)
    for path, label in zip(found.paths, found.labels, strict=True):
        assert path.stem.split("-", 1)[1] == found.class_names[label].replace(" ", "-")


def test_one_picture_outside_of_sub_folders_makes_the_folder_unlabelled(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "stray.png")
    assert read_folder(tmp_path).labels is None


def test_a_folder_called_like_a_picture_is_no_picture(tmp_path: Path) -> None:
    touch(tmp_path, "album.png/1.png", "cat/2.png")
    assert [path.name for path in read_folder(tmp_path).paths] == ["1.png", "2.png"]


def test_what_a_mac_leaves_beside_a_picture_is_no_picture(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "cat/._1.png", ".Trashes/old.png")
    assert [path.name for path in read_folder(tmp_path).paths] == ["1.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "no folder of pictures"), ("file.png", "it is a file"), ("empty", "holds no pictures")],
)
def test_a_folder_without_pictures_is_refused(tmp_path: Path, name: str, message: str) -> None:
    touch(tmp_path, "file.png", "empty/notes.txt")
    with pytest.raises(UsageError, match=message):
        read_folder(tmp_path / name)
