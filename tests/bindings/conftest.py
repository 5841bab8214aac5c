"""libclipedge, and the demonstration model in it and in the Python runtime."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import clipedge

sys.path.insert(0, str(Path(__file__).parent))  # for the files here that are no tests

from building import build
from native import Native, NativeModel
from native_stream import AT_ONCE, Colours, NativeStream, answered_stream, build_entry, options_of


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder with libclipedge.so and the examples."""
    return build("bindings")


@pytest.fixture(scope="session")
def native(built: Path) -> Native:
    return Native(built / "libclipedge.so")


@pytest.fixture(scope="session")
def native_fp32(native: Native, demo_bundle_fp32: Path) -> Iterator[NativeModel]:
    model = native.load(demo_bundle_fp32)
    yield model
    model.free()


@pytest.fixture(scope="session")
def native_int8(native: Native, demo_bundle: Path) -> Iterator[NativeModel]:
    model = native.load(demo_bundle)
    yield model
    model.free()


@pytest.fixture(scope="session")
def entry(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Native:
    """The library with stream_entry.cpp."""
    return build_entry(built, tmp_path_factory.mktemp("entry") / "libentry.so")


@pytest.fixture
def colours() -> Colours:
    return Colours()


@pytest.fixture
def stream(entry: Native, colours: Colours) -> Iterator[NativeStream]:
    """A stream of two labels whose answers are those of ``colours``."""
    made = answered_stream(entry, options_of(AT_ONCE), colours)
    yield made
    colours.free.set()
    made.free()


@pytest.fixture(scope="session")
def clip_fp32(demo_bundle_fp32: Path) -> clipedge.Clip:
    return clipedge.load(demo_bundle_fp32, backend="onnxruntime")


@pytest.fixture(scope="session")
def clip_int8(demo_bundle: Path) -> clipedge.Clip:
    return clipedge.load(demo_bundle, backend="onnxruntime")


@pytest.fixture(scope="session")
def pictures() -> list[NDArray[np.uint8]]:
    """500 pictures in as many sizes, cut out of scenes of the split "test"."""
    from clipedge.calibration.scenes import CLASSES, render, scene_of

    scenes = [np.asarray(render(scene_of("test", i, *CLASSES[3 * i]), 200, 200).picture) for i in range(25)]
    rng = np.random.default_rng(0)
    corners, sizes = rng.integers(0, 60, (500, 2)), rng.integers(80, 140, (500, 2))
    return [
        np.ascontiguousarray(scenes[i % 25][top : top + height, left : left + width])
        for i, ((top, left), (height, width)) in enumerate(zip(corners, sizes, strict=True))
    ]
