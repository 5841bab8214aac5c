"""Bundles of the demonstration checkpoint, exported once in a test run by the code under test; torch's threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `clipedge export` has it; before anything imports torch


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread: those that wait for each other after every small step are slower than one, on a busy machine
    ten times, and a sum's order is then known."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def demo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration checkpoint in INT8, as `clipedge export` makes it. Not to be changed: copy it."""
    return _export(tmp_path_factory.mktemp("demo") / "demo-int8", "int8")


@pytest.fixture(scope="session")
def demo_bundle_fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration checkpoint in float32. Not to be changed: copy it."""
    return _export(tmp_path_factory.mktemp("demo") / "demo-fp32", "fp32")


@pytest.fixture(scope="session")
def demo_bundle_dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration checkpoint with its patches, in INT8 and float32, calibrated and proven on few scenes."""
    from clipedge.calibration.scenes import CLASS_NAMES, write_folder
    from clipedge.export.pipeline import export

    folder = tmp_path_factory.mktemp("dense")
    write_folder(folder / "scenes", "calibration", 96, width=64, height=64)
    options = {"calibration_data": folder / "scenes", "labels": CLASS_NAMES, "dense": True}
    export(None, folder / "demo-dense", precision=("int8", "fp32"), **options)  # type: ignore[arg-type]
    return folder / "demo-dense"


def _export(output: Path, precision: str) -> Path:
    from clipedge.export.pipeline import export

    export(None, output, precision=precision)  # type: ignore[arg-type]
    return output
