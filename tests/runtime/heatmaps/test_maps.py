"""Heatmaps: whose place they show, at which pixels of the picture, and that they find objects in scenes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import clipedge
from clipedge.calibration.scenes import render, sample_scene
from clipedge.errors import BackendError, BundleError, SpaceError, UsageError
from clipedge.heatmaps.maps import Heatmap, label_map, seen_region
from clipedge.manifest import Preprocessing
from clipedge.prompts.bank import PromptBank
from clipedge.selftest import GOLDEN_NAME, golden_cosines

CROP = Preprocessing(64, 64, "shortest-edge", 64, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SQUASH = replace(CROP, resize="squash")


def bank_of(rows: np.ndarray, negatives: np.ndarray | None = None) -> PromptBank:
    labels = tuple(f"label {index}" for index in range(len(rows)))
    names = () if negatives is None else tuple(f"not {index}" for index in range(len(negatives)))
    return PromptBank(rows, labels, ("{}",), 100.0, 0.0, "softmax", "space", {}, names, negatives)


def test_a_map_is_told_from_other_labels_and_negatives() -> None:
    """Of two others 2 / 5 of the mean are taken away: 0.2 from each axis."""
    patches = np.eye(4, dtype=np.float32).reshape(2, 2, 4)  # each patch looks like one axis
    axes = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(label_map(patches, bank_of(axes[:1]), "label 0"), [[1, 0], [0, 0]])
    np.testing.assert_allclose(label_map(patches, bank_of(axes[:3]), "label 1"), [[-0.2, 1], [-0.2, 0]])
    told = label_map(patches, bank_of(axes[:2], axes[3:]), "label 0")
    np.testing.assert_allclose(told, [[1, -0.2], [0, -0.2]])
    with pytest.raises(UsageError, match="no label 'cat'; it has: label 0, label 1"):
        label_map(patches, bank_of(axes[:2]), "cat")


@pytest.mark.parametrize(
    ("size", "preprocessing", "region"),
    [
        ((64, 64), CROP, (0, 0, 64, 64)),
        ((320, 240), CROP, (39.53, 0, 280.47, 240)),  # scaled to 85 x 64, of which 10.5 are cut off, rounded down
        ((100, 400), CROP, (0, 150, 100, 250)),
        ((320, 240), SQUASH, (0, 0, 320, 240)),
        ((100, 100), replace(CROP, shortest_edge=32), (-50, -50, 150, 150)),  # filled up with black
    ],
)
def test_the_region_is_what_the_model_sees(
    size: tuple[int, int], preprocessing: Preprocessing, region: tuple[float, ...]
) -> None:
    np.testing.assert_allclose(seen_region(size, preprocessing), region, atol=2)


def test_pixels_are_bilinear_between_the_patches_centres() -> None:
    grid = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    found = Heatmap("cat", grid, (96, 40), (0, 0, 96, 40)).pixels()
    expected = PIL.Image.fromarray(grid).resize((96, 40), PIL.Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found, np.asarray(expected), atol=1e-5)


def test_pixels_outside_the_region_are_unknown() -> None:
    values = Heatmap("cat", np.ones((2, 2), np.float32), (10, 4), (3, 0, 7, 4)).pixels()
    assert values.shape == (4, 10)
    assert np.isnan(values).all(axis=0).tolist() == [True] * 3 + [False] * 4 + [True] * 3
    assert (values[:, 3:7] == 1).all()


@pytest.mark.parametrize("region", [(40, 0, 280, 240), (0, 0, 320, 240), (-30, -10, 350, 250)])
def test_the_peak_is_the_highest_pixel(region: tuple[float, float, float, float]) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        heatmap = Heatmap("cat", rng.standard_normal((8, 8)).astype(np.float32), (320, 240), region)
        x, y = heatmap.peak
        values = heatmap.pixels()
        if 0 < heatmap.grid.argmax() % 8 < 7 and 8 <= heatmap.grid.argmax() < 56:  # not on the border, cut or clamped
            assert values[y, x] >= np.nanmax(values) - 0.15
        assert 0 <= x < 320 and 0 <= y < 240


def test_a_bundle_without_patches_says_how_to_get_them(demo_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"no dense output.*clipedge export --dense"):
        clipedge.load(demo_bundle).encode_patches([])


def test_patches_are_unit_vectors_in_order(demo_bundle_dense: Path) -> None:
    clip = clipedge.load(demo_bundle_dense)
    pictures = [render(sample_scene("test", index), 90, 70).picture for index in range(18)]
    embeds = clip.encode_patches(pictures)
    assert embeds.shape == (18, 8, 8, 128) and embeds.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeds, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(clip.encode_patches(pictures[17])[0], embeds[17], atol=1e-4)
    assert clip.encode_patches([]).shape == (0, 8, 8, 128)


def test_a_bank_of_another_model_is_refused(demo_bundle_dense: Path) -> None:
    clip = clipedge.load(demo_bundle_dense)
    with pytest.raises(SpaceError):
        clip.heatmap(np.zeros((64, 64, 3), np.uint8), "red star", replace(clip.saved_bank("default"), space_id="x"))


@pytest.mark.parametrize(("variant", "size"), [("fp32", (160, 100)), ("int8.x86", (100, 160)), ("int8.x86", (64, 64))])
def test_maps_find_the_objects_of_scenes(demo_bundle_dense: Path, variant: str, size: tuple[int, int]) -> None:
    """At the picture's pixels, whatever its aspect ratio (benchmarks/pointing_game.py has the figures)."""
    clip = clipedge.load(demo_bundle_dense, variant=variant)
    bank = clip.saved_bank("default")
    hits = []
    for index in range(15):
        scene = sample_scene("validation", index, objects=2)
        rendered = render(scene, *size)
        data = io.BytesIO()
        PIL.Image.fromarray(rendered.picture).save(data, "PNG")
        for item, mask in zip(scene.objects, rendered.masks, strict=True):
            x, y = clip.heatmap(data.getvalue(), f"{item.color} {item.shape}", bank).peak
            hits.append(mask[y, x])
    assert np.mean(hits) > 0.6


def test_an_engine_that_gives_wrong_patches_is_refused(
    demo_bundle_dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clipedge.load(demo_bundle_dense)
    right = type(clip.image_engine).__call__
    monkeypatch.setattr(type(clip.image_engine), "__call__", lambda self, batch: right(self, batch)[..., ::-1])
    with pytest.raises(BackendError, match="gives wrong numbers with the dense tower"):
        _ = clip.dense_engine


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("variant", ["fp32", "int8.x86"])
def test_every_engine_gives_the_proven_patches(demo_bundle_dense: Path, backend: str, variant: str) -> None:
    clip = clipedge.load(demo_bundle_dense, backend=backend, variant=variant)
    cosines = golden_cosines(clip.dense_engine, clip.bundle.checked_file(GOLDEN_NAME), "dense")
    assert len(cosines) == 64
    assert np.median(cosines) > (0.99999 if variant == "fp32" else 0.985)
