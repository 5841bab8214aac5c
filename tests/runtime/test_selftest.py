"""The self-test at load: it accepts the engine that was proven and refuses one that gives wrong numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from clipedge.backends import open_engine
from clipedge.bundle import Bundle, open_bundle
from clipedge.errors import BackendError, BundleError
from clipedge.manifest import TowerName, Variant
from clipedge.selftest import GOLDEN_NAME, centred_cosines, cosines, golden_cosines, self_test

Floats = npt.NDArray[np.float32]
Batch = npt.NDArray[np.generic]


class BrokenEngine:
    """The real engine's embeddings with something done to them: a broken engine cannot be had to order."""

    name, device, version = "broken", "cpu", "0"

    def __init__(self, inner: Callable[[Batch], Floats], damage: Callable[[Floats], npt.NDArray[Any]]) -> None:
        self.inner, self.damage = inner, damage

    def __call__(self, batch: Batch) -> Floats:
        return np.asarray(self.damage(self.inner(batch)))


def normalised(rows: npt.NDArray[Any]) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def rotated(degrees: float) -> Callable[[Floats], Floats]:
    """Turn every embedding by an angle, towards a fixed random direction."""

    def turn(rows: Floats) -> Floats:
        other = np.random.default_rng(0).standard_normal(rows.shape)
        other -= (other * rows).sum(axis=1, keepdims=True) * rows
        angle = math.radians(degrees)
        return np.asarray(math.cos(angle) * rows + math.sin(angle) * normalised(other), np.float32)

    return turn


def variant_of(bundle: Bundle, tower: TowerName) -> Variant:
    (variant,) = (variant for variant in bundle.manifest.variants if variant.tower == tower)
    return variant


@pytest.fixture(params=["image", "text"])
def tower(request: pytest.FixtureRequest) -> TowerName:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["demo_bundle", "demo_bundle_fp32"], ids=["int8", "fp32"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return open_bundle(request.getfixturevalue(request.param))


def test_the_proven_engine_is_accepted(bundle: Bundle, tower: TowerName) -> None:
    variant = variant_of(bundle, tower)
    engine = open_engine(bundle.checked_variant(variant), variant)
    self_test(engine, bundle.checked_file(GOLDEN_NAME), variant)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda rows: rows * np.nan, "nan"),
        (lambda rows: rows * 0, ""),
        (lambda rows: np.full_like(rows, rows.shape[1] ** -0.5), ""),
        (lambda rows: np.eye(1, rows.shape[1], dtype=np.float32), ""),
        (lambda rows: -rows, "-"),
        (lambda rows: rows[:, ::-1], ""),
        (lambda rows: normalised(np.where(np.arange(rows.shape[1]) % 8, rows, 0)), ""),
        (rotated(35), ""),
    ],
    ids=["NaN", "zeros", "constant", "one axis", "negated", "mirrored", "channels lost", "drifted"],
)
def test_an_engine_with_wrong_numbers_is_refused(
    bundle: Bundle, tower: TowerName, damage: Callable[[Floats], npt.NDArray[Any]], found: str
) -> None:
    variant = variant_of(bundle, tower)
    engine = BrokenEngine(open_engine(bundle.checked_variant(variant), variant), damage)
    with pytest.raises(BackendError, match=f"gives wrong numbers with the {tower} tower.*is {found}.* here; use"):
        self_test(engine, bundle.checked_file(GOLDEN_NAME), variant)


def test_a_hair_of_drift_is_accepted(bundle: Bundle) -> None:
    variant = variant_of(bundle, "image")
    engine = BrokenEngine(open_engine(bundle.checked_variant(variant), variant), rotated(2))
    self_test(engine, bundle.checked_file(GOLDEN_NAME), variant)


@pytest.mark.parametrize("width", [1, 64])
def test_an_engine_with_the_wrong_width_is_refused(demo_bundle: Path, width: int) -> None:
    bundle = open_bundle(demo_bundle)
    variant = variant_of(bundle, "image")
    engine = BrokenEngine(open_engine(bundle.checked_variant(variant), variant), lambda rows: rows[:, :width])
    with pytest.raises(BackendError, match=rf"expected .*\[1, 128\].*, found \[1, {width}\]"):
        self_test(engine, bundle.checked_file(GOLDEN_NAME), variant)


def test_a_tower_without_proof_is_refused(demo_bundle: Path) -> None:
    bundle = open_bundle(demo_bundle)
    variant = dataclasses.replace(variant_of(bundle, "image"), proof=None)
    engine = open_engine(bundle.checked_variant(variant), variant)
    with pytest.raises(BundleError, match="without a proof"):
        self_test(engine, bundle.checked_file(GOLDEN_NAME), variant)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors: tensors.pop("pixels"),
        lambda tensors: tensors.pop("image_embeds"),
        lambda tensors: tensors.update(pixels=tensors["pixels"][:0], image_embeds=tensors["image_embeds"][:0]),
        lambda tensors: tensors.update(pixels=tensors["pixels"][:4]),
        lambda tensors: tensors.update(image_embeds=tensors["image_embeds"][0]),
        lambda tensors: tensors.update(image_embeds=np.array(1, np.float32)),
        lambda tensors: tensors.update(pixels=np.array(1, np.uint8)),
    ],
    ids=["no inputs", "no embeddings", "empty", "fewer inputs", "one embedding", "scalar", "scalar input"],
)
def test_goldens_that_do_not_fit_together_are_refused(
    demo_bundle: Path, tmp_path: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    bundle = open_bundle(demo_bundle)
    variant = variant_of(bundle, "image")
    tensors = load_file(bundle.checked_file(GOLDEN_NAME))
    damage(tensors)
    save_file(tensors, tmp_path / GOLDEN_NAME)
    with pytest.raises(BundleError, match=r"golden\.safetensors"):
        self_test(open_engine(bundle.checked_variant(variant), variant), tmp_path / GOLDEN_NAME, variant)


def test_a_golden_file_of_something_else_is_refused(demo_bundle: Path) -> None:
    bundle = open_bundle(demo_bundle)
    variant = variant_of(bundle, "image")
    with pytest.raises(BundleError, match="cannot be read"):
        self_test(open_engine(bundle.checked_variant(variant), variant), demo_bundle / "tokenizer.json", variant)


def test_every_golden_of_the_bundle_agrees_with_its_source(bundle: Bundle, tower: TowerName) -> None:
    variant = variant_of(bundle, tower)
    found = golden_cosines(open_engine(bundle.checked_variant(variant), variant), bundle.folder / GOLDEN_NAME, tower)
    assert len(found) == 32
    assert found.min() > (0.99999 if variant.precision == "fp32" else 0.95)


def test_cosines_are_those_of_the_angle() -> None:
    first = np.array([[1.0, 0.0], [1.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    second = np.array([[0.0, 2.0], [-5.0, 0.0], [4.0, 3.0], [1.0, 0.0]])
    np.testing.assert_allclose(cosines(first, second), [0, -1, 24 / 25, np.nan])


def test_the_mean_hides_an_error_that_centring_shows() -> None:
    """Two embeddings with a large common part: nearly the same raw, opposite once the common part is gone."""
    mean = np.array([10.0, 0.0])
    first, second = np.array([[10.0, 1.0]]), np.array([[10.0, -1.0]])
    assert cosines(first, second)[0] > 0.98
    np.testing.assert_allclose(centred_cosines(first, second, mean), [-1])
