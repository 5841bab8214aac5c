"""Where calibration and proof pictures come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipedge.calibration.data import Pictures, folder_pictures, pixel_batches, scene_pictures, split_folder
from clipedge.calibration.texts import everyday_captions, tower_texts
from clipedge.errors import ImageError, UsageError
from clipedge.manifest import Preprocessing

PIXELS = Preprocessing(
    height=16,
    width=16,
    resize="shortest-edge",
    shortest_edge=16,
    interpolation="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (20, 30), (i, 0, 0)).save(folder / f"{i}.png")


def test_calibration_and_proof_never_share_a_picture(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cat", 10)
    write_pictures(tmp_path / "traffic_light", 11)
    pictures = folder_pictures(tmp_path)
    calibration, proof = split_folder(pictures)
    assert pictures.class_names == ("cat", "traffic light")
    assert not set(map(str, calibration.items)) & set(map(str, proof.items))
    assert len(calibration) + len(proof) == 21
    for part in (calibration, proof):
        assert part.labels is not None
        names = [str(Path(str(item)).parent.name).replace("_", " ") for item in part.items]
        assert names == [part.class_names[label] for label in part.labels]


def test_scene_splits_share_no_picture() -> None:
    calibration, proof = scene_pictures("calibration", 40, 32), scene_pictures("proof", 40, 32)
    assert not {np.asarray(p).tobytes() for p in calibration.items} & {np.asarray(p).tobytes() for p in proof.items}


def test_pictures_beside_sub_folders_have_no_labels(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cat", 2)
    write_pictures(tmp_path, 1)
    assert folder_pictures(tmp_path).labels is None


def test_unreadable_pictures_are_named_and_the_others_keep_their_index(tmp_path: Path) -> None:
    write_pictures(tmp_path, 5)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    unreadable: list[str] = []
    batches = list(pixel_batches(folder_pictures(tmp_path), PIXELS, unreadable, batch=3))
    assert [indices.tolist() for indices, _ in batches] == [[0, 1, 3], [4]]
    assert [pixels[0, 0, 0, 0] for _, pixels in batches] == [0, 4]
    assert len(unreadable) == 1 and "2.png" in unreadable[0]


def test_no_readable_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"none of the 1 pictures .*a\.png"):
        list(pixel_batches(folder_pictures(tmp_path), PIXELS, []))


def test_empty_missing_and_small_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no pictures"):
        folder_pictures(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        folder_pictures(tmp_path / "missing")
    with pytest.raises(UsageError, match="at least"):
        split_folder(Pictures("three", [np.zeros((2, 2, 3), np.uint8)] * 3))


def test_no_proof_text_was_calibrated_on() -> None:
    calibration, proof = tower_texts(["cat", "dog", "a {brace}"], ["a photo of a {}.", "{}"])
    assert not set(calibration) & set(proof)
    assert {"cat", "a photo of a dog.", "a {brace}"} <= {*calibration, *proof}
    assert min(len(calibration), len(proof)) > 100


def test_captions_are_a_function_of_the_seed() -> None:
    assert everyday_captions(50, 1) == everyday_captions(50, 1) != everyday_captions(50, 2)
