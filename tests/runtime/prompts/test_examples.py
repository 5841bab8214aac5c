"""Labelled folders as embeddings: whose truth is which, and what is left out or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from clipedge.errors import UsageError
from clipedge.folders import read_folder
from clipedge.images.pixels import Images, open_rgb
from clipedge.prompts.examples import embed_examples


def read_red(images: Images) -> npt.NDArray[np.float32]:
    """An encoder whose embedding is the picture's red value."""
    assert isinstance(images, list)
    return np.array([[open_rgb(image).getpixel((0, 0))[0]] for image in images], np.float32)  # type: ignore[index]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ("dog", "a_cat", "none", "dog/puppies")
    for red, name in enumerate(names):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (4, 4), (red, 0, 0)).save(tmp_path / name / "picture.png")
    return tmp_path


def test_a_picture_has_the_truth_of_its_folder(folder: Path) -> None:
    seen: list[int] = []
    found = embed_examples(read_red, read_folder(folder), ("bird", "dog", "a cat"), "none", seen.append)
    truths = {int(red): int(truth) for (red,), truth in zip(found.image_embeds, found.truths, strict=True)}
    assert truths == {0: 1, 1: 2, 2: -1, 3: 1}
    assert seen == [1, 2, 3, 4]
    assert found.unreadable == ()


def test_an_unreadable_picture_is_left_out_and_named(folder: Path) -> None:
    (folder / "a_cat" / "picture.png").write_bytes(b"no picture")
    found = embed_examples(read_red, read_folder(folder), ("dog", "a cat"), "none")
    assert sorted(found.truths) == [-1, 0, 0]
    (line,) = found.unreadable
    assert "a_cat" in line


def test_a_folder_that_does_not_fit_the_labels_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"the sub-folders 'dog' are no labels \('a cat'…\) and not 'none'"):
        embed_examples(read_red, read_folder(folder), ("a cat",), "none")
    with pytest.raises(UsageError, match="'none' is a label"):
        embed_examples(read_red, read_folder(folder), ("dog", "a cat", "none"), "none")
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(UsageError, match="none of the 4 pictures can be read"):
        embed_examples(read_red, read_folder(folder), ("dog", "a cat"), "none")
    (folder / "loose.png").write_bytes(b"")
    with pytest.raises(UsageError, match="outside of sub-folders"):
        embed_examples(read_red, read_folder(folder), ("dog", "a cat"), "none")
