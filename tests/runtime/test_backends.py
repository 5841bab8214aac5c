"""Engines: what runs is what was asked for, right inputs are told from wrong ones, and broken graphs are refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from clipedge.backends import BACKENDS, open_engine
from clipedge.backends import onnxruntime as backend_module
from clipedge.backends.onnxruntime import OnnxRuntimeEngine, session_options
from clipedge.bundle import Bundle, open_bundle
from clipedge.errors import BackendError, UsageError
from clipedge.manifest import TensorSpec, Variant


@pytest.fixture
def bundle(demo_bundle: Path) -> Bundle:
    return open_bundle(demo_bundle)


@pytest.fixture
def variant(bundle: Bundle) -> Variant:
    return next(variant for variant in bundle.manifest.variants if variant.tower == "image")


@pytest.fixture
def graph(bundle: Bundle, variant: Variant) -> Path:
    return bundle.checked_variant(variant)


def noise(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_an_engine_says_what_it_effectively_runs_on(graph: Path, variant: Variant, backend: str | None) -> None:
    engine = open_engine(graph, variant, backend)
    assert (engine.name, engine.device, engine.version) == ("onnxruntime", "cpu", onnxruntime.__version__)
    assert isinstance(engine, OnnxRuntimeEngine)
    assert engine._session.get_providers() == ["CPUExecutionProvider"]


def test_embeddings_are_float32_unit_vectors_and_repeatable(graph: Path, variant: Variant) -> None:
    engine = open_engine(graph, variant)
    found = engine(noise(5))
    assert found.shape == (5, 128)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found, engine(noise(5)))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_answer(graph: Path, variant: Variant, threads: int) -> None:
    expected = open_engine(graph, variant)(noise(3))
    np.testing.assert_allclose(open_engine(graph, variant, threads=threads)(noise(3)), expected, atol=1e-6)
    assert session_options(threads).intra_op_num_threads == threads


def test_one_engine_serves_several_threads_at_once(graph: Path, variant: Variant) -> None:
    engine = open_engine(graph, variant, threads=1)
    pictures = noise(24)
    expected = [engine(pictures[i : i + 1]) for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: engine(pictures[i : i + 1]), range(24)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(graph: Path, variant: Variant, threads: int) -> None:
    with pytest.raises(UsageError, match=f"threads is {threads}; it has to be 1 or more"):
        open_engine(graph, variant, threads=threads)


def test_an_unknown_backend_is_refused_with_the_known_ones(graph: Path, variant: Variant) -> None:
    with pytest.raises(UsageError, match="unknown backend 'tflite'; there are: onnxruntime"):
        open_engine(graph, variant, "tflite")


@pytest.mark.parametrize("backend", [None, "onnxruntime"])
def test_a_backend_that_is_not_installed_names_what_to_install(demo_bundle: Path, backend: str | None) -> None:
    script = (
        "import sys; sys.modules['onnxruntime'] = None\n"  # what Python itself makes of a missing package
        "import clipedge\n"
        f"try: clipedge.load({str(demo_bundle)!r}, backend={backend!r})\n"
        "except clipedge.MissingDependencyError as error: print(error)"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert "clipedge[cpu]" in output
    assert "clipedge[gpu]" in output


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (np.zeros((1, 64, 64, 3), np.float32), r"float32 \[1, 64, 64, 3\]"),
        (np.zeros((1, 64, 64, 3), np.int8), r"int8 \[1, 64, 64, 3\]"),
        (np.zeros((1, 3, 64, 64), np.uint8), r"uint8 \[1, 3, 64, 64\]"),
        (np.zeros((1, 224, 224, 3), np.uint8), r"uint8 \[1, 224, 224, 3\]"),
        (np.zeros((64, 64, 3), np.uint8), r"uint8 \[64, 64, 3\]"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(
    graph: Path, variant: Variant, batch: npt.NDArray[np.generic], found: str
) -> None:
    engine = open_engine(graph, variant)
    with pytest.raises(BackendError, match=rf"takes pixels as uint8 \['batch', 64, 64, 3\], found {found}"):
        engine(batch)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, 0),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(b"this is no graph"),
        lambda path: path.write_bytes(b"\xff" * 4096),
        lambda path: path.unlink(),
    ],
    ids=["empty", "cut", "text", "ones", "missing"],
)
def test_a_broken_graph_is_refused_in_one_line(graph: Path, variant: Variant, tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    copy = Path(shutil.copy(graph, tmp_path))
    damage(copy)
    with pytest.raises(BackendError, match=rf"ONNX Runtime .* refuses {copy.name}: ") as error:
        open_engine(copy, variant)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_manifest_with_other_tensor_names_than_its_graph_is_refused(graph: Path, variant: Variant, side: str) -> None:
    renamed: tuple[TensorSpec, ...] = tuple(replace(spec, name="other") for spec in getattr(variant, side))
    other = replace(variant, inputs=renamed) if side == "inputs" else replace(variant, outputs=renamed)
    with pytest.raises(BackendError, match="other"):
        open_engine(graph, other)(noise(1))


def test_an_unknown_dtype_in_the_manifest_is_refused(graph: Path, variant: Variant) -> None:
    (spec,) = variant.inputs
    other = replace(variant, inputs=(TensorSpec(spec.name, "uint9", spec.shape),))
    with pytest.raises(BackendError, match="takes pixels as uint9"):
        open_engine(graph, other)(noise(1))


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags : fpu sse avx2 avx512f", True),
        ("AMD64", "flags : fpu sse avx2", True),
        ("x86_64", "flags : fpu avx2 avx512f avx512_vnni", False),
        ("x86_64", "flags : fpu avx2 avx_vnni", False),
        ("x86_64", None, True),
        ("aarch64", "Features : fp asimd", False),
    ],
)
def test_x86_without_vnni_gets_the_kernels_that_do_not_saturate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, flags: str | None, expected: bool
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(flags)
    monkeypatch.setattr(backend_module, "Path", lambda path: cpuinfo)
    monkeypatch.setattr("platform.machine", lambda: machine)
    try:
        entry = session_options().get_session_config_entry("session.x64quantprecision")
    except RuntimeError:  # not set
        entry = None
    assert entry == ("1" if expected else None)
