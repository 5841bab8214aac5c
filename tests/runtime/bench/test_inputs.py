"""What is fed is what a camera would feed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from clipedge.bench.inputs import SOURCES, given_picture, nv12_frame, query_from, synthetic_picture
from clipedge.errors import ImageError, UsageError
from clipedge.images.frames import to_rgb
from clipedge.model import load
from clipedge.selftest import cosines


def test_the_synthetic_picture_is_a_jpeg_and_always_the_same() -> None:
    first, second = synthetic_picture(), synthetic_picture()
    assert first.jpeg == second.jpeg
    decoded = PIL.Image.open(io.BytesIO(first.jpeg))
    assert (decoded.format, decoded.size) == ("JPEG", (1280, 720))
    assert 50_000 < len(first.jpeg) < 1_000_000  # neither flat nor noise


def test_the_frame_shows_the_picture() -> None:
    """Chroma is halved in both directions, so it is compared where that makes no difference: on a smooth picture."""
    rows, columns = np.mgrid[0:40, 0:61]
    picture = PIL.Image.fromarray(np.stack([4 * columns, 6 * rows, 255 - 4 * columns], axis=2).astype(np.uint8))
    frame = nv12_frame(picture)
    assert (frame.width, frame.height, frame.format) == (60, 40, "nv12")
    difference = np.asarray(to_rgb(frame), float) - np.asarray(picture, float)[:, :60]
    assert np.abs(difference).mean() < 3
    with pytest.raises(ImageError, match="2 x 2 pixels"):
        nv12_frame(PIL.Image.new("RGB", (9, 1)))


def test_queries_embed_so_many_samples(demo_bundle: Path) -> None:
    clip = load(demo_bundle)
    picture = synthetic_picture()
    embeds = {source: np.asarray(query_from(clip, source, picture)(3)) for source in SOURCES}
    for found in embeds.values():
        assert found.shape == (3, clip.manifest.embedding_dim)
    assert np.array_equal(embeds["jpeg"][0], embeds["jpeg"][2])
    assert cosines(embeds["frame"], embeds["jpeg"]).min() > 0.98
    assert not np.array_equal(embeds["tensor"][0], embeds["tensor"][1])


def test_tensors_take_turns(demo_bundle: Path) -> None:
    clip = load(demo_bundle)
    query = query_from(clip, "tensor", synthetic_picture())
    first = np.concatenate([np.asarray(query(8)) for _ in range(4)])
    again = np.asarray(query(8))
    assert len(np.unique(first.round(4), axis=0)) > 8
    assert np.allclose(again, first[:8], atol=1e-4)  # after all 32 the first ones come again


def test_a_picture_of_the_users(tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (320, 200), "red")
    picture.save(tmp_path / "red.jpg")
    picture.save(tmp_path / "red.png")
    found = given_picture(str(tmp_path / "red.jpg"))
    assert found.jpeg == (tmp_path / "red.jpg").read_bytes()
    assert found.description.startswith("red.jpg, 320 x 200, JPEG of ")
    with pytest.raises(UsageError, match="expected a JPEG"):
        given_picture(str(tmp_path / "red.png"))
    with pytest.raises(ImageError):
        given_picture(str(tmp_path / "none.jpg"))
