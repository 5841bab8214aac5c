"""What is read, and what is refused before anything is trained."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipedge.calibration import scenes
from clipedge.calibration.data import choose, read_pictures
from clipedge.errors import ImageError, UsageError
from clipedge.export.finetuning.material import exam_pictures, gather, with_sidecars
from clipedge.text import Tokenizer


def test_pairs_have_a_group_each_and_share_equal_captions(pairs: Path, tokenizer: Tokenizer) -> None:
    pictures = read_pictures(pairs)
    assert pictures.captions is not None
    found = gather(pictures, None, None, tokenizer)
    assert not found.has_classes and found.groups.tolist() == list(range(40))
    distinct = {text for captions in pictures.captions for text in captions}
    assert found.tokens.shape == (len(distinct), 32) and len(distinct) < 80  # some captions repeat
    for captions, texts in zip(pictures.captions, found.texts, strict=True):
        assert np.array_equal(found.tokens[texts], tokenizer(captions))


def test_classes_have_all_their_prompts(classes: Path, tokenizer: Tokenizer) -> None:
    templates = ["a {}.", "no {}?"]
    found = gather(read_pictures(classes), None, templates, tokenizer)
    assert found.labels == ("blue star", "green square", "red circle", "white ring")
    assert np.bincount(found.groups).tolist() == [10, 10, 10, 10]
    assert [texts.tolist() for texts in found.texts] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert np.array_equal(found.tokens[2:4], tokenizer(["a green square.", "no green square?"]))
    assert len(gather(read_pictures(classes), None, None, tokenizer).tokens) == 4  # one template


def test_all_classes_of_the_scenes_have_the_scenes_templates(classes: Path, tokenizer: Tokenizer) -> None:
    found = gather(read_pictures(classes), scenes.CLASS_NAMES, None, tokenizer)
    assert found.labels == scenes.CLASS_NAMES and len(found.tokens) == 120 * len(scenes.TEMPLATES)
    assert {found.labels[group] for group in found.groups} == {"blue star", "green square", "red circle", "white ring"}


@pytest.fixture
def beside(pairs: Path, tmp_path: Path) -> Path:
    """Four pictures with their captions beside them."""
    folder = tmp_path / "beside"
    folder.mkdir()
    for index in range(4):
        shutil.copy(pairs.parent / f"{index}.png", folder)
        (folder / f"{index}.txt").write_text(f"\ufeffa picture\n of number {index}\n", encoding="utf-8")
    (folder / "notes.txt").write_text("beside no picture")
    return folder


def test_captions_beside_the_pictures_of_a_folder(beside: Path, tokenizer: Tokenizer) -> None:
    pictures = with_sidecars(read_pictures(beside))
    assert pictures.captions == [(f"a picture of number {index}",) for index in range(4)]
    assert exam_pictures(beside, 64).captions == pictures.captions
    assert len(gather(pictures, None, None, tokenizer).tokens) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), r"1 of 4 pictures have no caption beside them, the first of them .*2\.png"),
        (lambda path: path.write_text(" \n"), "should hold a caption in 1 to"),
        (lambda path: path.write_bytes(b"a" * 10_001), "should hold a caption in 1 to"),
        (lambda path: path.write_bytes(b"\xff\xfe\xfd"), "as UTF-8 text"),
    ],
)
def test_a_missing_or_bad_caption_is_named(change: object, message: str, beside: Path) -> None:
    assert callable(change)
    change(beside / "2.txt")
    with pytest.raises(UsageError, match=message):
        with_sidecars(read_pictures(beside))


def test_unreadable_pictures_are_named_and_left_out(classes: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    copy = shutil.copytree(classes, tmp_path / "copy")
    (copy / "red_circle" / "3.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"1 of 40 pictures cannot be read .*3\.png"):
        found = gather(read_pictures(copy), None, None, tokenizer)
    assert len(found.unreadable) == 1 and "3.png" in found.unreadable[0]
    assert np.bincount(found.groups).tolist() == [10, 10, 9, 10]
    assert not any(str(item).endswith("red_circle/3.png") for item in found.pictures.items)


def test_what_says_nothing_of_its_pictures_is_refused(
    classes: Path, pairs: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(UsageError, match=r"has no captions.*one sub-folder for each class"):
        gather(read_pictures(pairs.parent), None, None, tokenizer)
    one = choose(read_pictures(classes), np.arange(10))
    with pytest.raises(UsageError, match="the labels are not the classes"):
        gather(one, ["cat", "dog"], None, tokenizer)
    shutil.copytree(classes / "red_circle", tmp_path / "one" / "red_circle")
    with pytest.raises(UsageError, match="has one class, red circle"):
        gather(read_pictures(tmp_path / "one"), None, None, tokenizer)
    (tmp_path / "list.csv").write_text("path,caption\nmissing.png,a red circle\n")
    with pytest.raises(ImageError, match="none of the 1 pictures"):
        gather(read_pictures(tmp_path / "list.csv"), None, None, tokenizer)
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for name in ("0.png", "1.png"):
            tar.add(pairs.parent / name, name)
        (tmp_path / "0.txt").write_text("a red circle")
        tar.add(tmp_path / "0.txt", "0.txt")
    with pytest.raises(UsageError, match="1 of 2 pictures have no caption"):
        gather(read_pictures(tmp_path / "some.tar", captions=True), None, None, tokenizer)


def test_scenes_examine_with_their_classes() -> None:
    found = exam_pictures("scenes", 32)
    assert found.captions is None and found.class_names == scenes.CLASS_NAMES and len(found) == 600
    assert Image.fromarray(np.asarray(found.items[0])).size == (32, 32)
