"""Every engine: what runs is what was asked for, answers do not depend on threads, company or repetition, right inputs
are told from wrong ones, and broken graphs are refused."""

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
import openvino
import pytest
from safetensors.numpy import load_file

from clipedge.backends import BACKENDS, Engine, EngineOptions, cpu, engine_facts, open_engine, preferred_backends
from clipedge.backends.onnxruntime import session_options
from clipedge.backends.openvino import compile_properties
from clipedge.bundle import Bundle, open_bundle
from clipedge.errors import BackendError, MissingDependencyError, UsageError
from clipedge.manifest import TensorSpec, Variant, VariantProof
from clipedge.selftest import GOLDEN_NAME, centred_cosines, golden_cosines

VERSIONS = {"onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__.partition("-")[0]}
TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@pytest.fixture
def bundle(demo_bundle: Path) -> Bundle:
    return open_bundle(demo_bundle)


@pytest.fixture
def variant(bundle: Bundle) -> Variant:
    return next(variant for variant in bundle.manifest.variants if variant.tower == "image")


@pytest.fixture
def graph(bundle: Bundle, variant: Variant) -> Path:
    return bundle.checked_variant(variant)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def noise(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


def test_an_engine_says_what_it_effectively_runs_on(graph: Path, variant: Variant, backend: str) -> None:
    facts = engine_facts(open_engine(graph, variant, backend))
    assert facts.pop("arithmetic").startswith("int8")
    assert facts == {"backend": backend, "version": VERSIONS[backend], "device": "cpu"}


def test_no_backend_named_gives_the_preferred_one(graph: Path, variant: Variant) -> None:
    assert open_engine(graph, variant).name == preferred_backends()[0]


@pytest.mark.parametrize(("vnni", "first"), [(True, "openvino"), (False, "onnxruntime")])
def test_the_order_of_backends_follows_from_vnni(monkeypatch: pytest.MonkeyPatch, vnni: bool, first: str) -> None:
    monkeypatch.setattr("clipedge.backends.has_vnni", lambda: vnni)
    assert preferred_backends()[0] == first
    assert sorted(preferred_backends()) == sorted(BACKENDS)


def test_embeddings_are_float32_unit_vectors(graph: Path, variant: Variant, backend: str) -> None:
    found = open_engine(graph, variant, backend)(noise(5))
    assert found.shape == (5, 128)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_the_same_input_gives_the_same_bits(graph: Path, variant: Variant, backend: str) -> None:
    engine = open_engine(graph, variant, backend)
    first = engine(noise(5))
    kept = first.copy()
    np.testing.assert_array_equal(engine(noise(5)), first)
    engine(noise(5)[::-1].copy())
    np.testing.assert_array_equal(first, kept, err_msg="a later call wrote into an earlier one's result")
    np.testing.assert_array_equal(open_engine(graph, variant, backend)(noise(5)), first)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_batch_mates_change_no_answer(demo_bundle: Path, demo_bundle_fp32: Path, backend: str, precision: str) -> None:
    engine, _ = image_tower(demo_bundle if precision == "int8" else demo_bundle_fp32, backend)
    pictures = noise(16)
    alone = np.concatenate([engine(picture[None]) for picture in pictures])
    for size in (2, 7, 16):
        together = np.concatenate([engine(pictures[i : i + size]) for i in range(0, 16, size)])
        if engine.arithmetic == "int8":  # a float sum in another order may fall on the other side of a rounding edge
            assert (together * alone).sum(axis=1).min() > 0.9995
        else:
            np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_answer(graph: Path, variant: Variant, backend: str, threads: int) -> None:
    expected = open_engine(graph, variant, backend)(noise(3))
    found = open_engine(graph, variant, backend, EngineOptions(threads=threads))(noise(3))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert session_options(EngineOptions(threads)).intra_op_num_threads == threads
    assert compile_properties(EngineOptions(threads))["INFERENCE_NUM_THREADS"] == threads


def test_sleeping_threads_change_no_answer(graph: Path, variant: Variant, backend: str) -> None:
    expected = open_engine(graph, variant, backend)(noise(3))
    sleeping = EngineOptions(spinning=False)
    np.testing.assert_array_equal(open_engine(graph, variant, backend, sleeping)(noise(3)), expected)
    assert session_options(sleeping).get_session_config_entry("session.force_spinning_stop") == "1"


def test_one_engine_serves_several_threads_at_once(graph: Path, variant: Variant, backend: str) -> None:
    engine = open_engine(graph, variant, backend, EngineOptions(threads=1))
    pictures = noise(24)
    expected = [engine(pictures[i : i + 1]) for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: engine(pictures[i : i + 1]), range(24)))
    np.testing.assert_array_equal(found, expected)


def test_an_array_that_is_no_plain_block_of_memory_is_taken(graph: Path, variant: Variant, backend: str) -> None:
    engine = open_engine(graph, variant, backend)
    wide = np.repeat(noise(2), 2, axis=2)
    view = wide[:, :, ::2]
    view.flags.writeable = False
    np.testing.assert_array_equal(engine(view), engine(noise(2)))


def image_tower(folder: Path, backend: str) -> tuple[Engine, VariantProof]:
    bundle = open_bundle(folder)
    variant = next(variant for variant in bundle.manifest.variants if variant.tower == "image")
    assert variant.proof is not None
    return open_engine(bundle.checked_variant(variant), variant, backend), variant.proof


@pytest.mark.parametrize("tower", ["image", "text"])
def test_float32_is_the_same_in_every_engine(demo_bundle_fp32: Path, tower: str, tmp_path: Path) -> None:
    bundle = open_bundle(demo_bundle_fp32)
    variant = next(variant for variant in bundle.manifest.variants if variant.tower == tower)
    inputs = load_file(bundle.checked_file(GOLDEN_NAME))["pixels" if tower == "image" else "input_ids"]
    first, second = (open_engine(bundle.checked_variant(variant), variant, name)(inputs) for name in BACKENDS)
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_int8_stays_within_the_gate_in_every_engine(demo_bundle: Path, tower: str, backend: str) -> None:
    """The proof was made in one engine; the goldens carry the source's answers to any other."""
    bundle = open_bundle(demo_bundle)
    variant = next(variant for variant in bundle.manifest.variants if variant.tower == tower)
    assert variant.proof is not None
    engine = open_engine(bundle.checked_variant(variant), variant, backend)
    found = golden_cosines(engine, bundle.checked_file(GOLDEN_NAME), tower)
    assert np.median(found) >= 0.985
    assert found.min() >= 0.95
    assert found[0] >= variant.proof.golden_cosine - 0.01, "a fifth of what the self-test at load allows"


def test_int8_agrees_between_engines(demo_bundle: Path) -> None:
    pixels = load_file(open_bundle(demo_bundle).checked_file(GOLDEN_NAME))["pixels"]
    first, second = (image_tower(demo_bundle, name)[0](pixels) for name in BACKENDS)
    assert np.median(centred_cosines(first, second, first.mean(axis=0))) >= 0.985


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads: int) -> None:
    with pytest.raises(UsageError, match=f"threads is {threads}; it has to be 1 or more"):
        EngineOptions(threads=threads)


def test_an_unknown_backend_is_refused_with_the_known_ones(graph: Path, variant: Variant) -> None:
    with pytest.raises(UsageError, match="unknown backend 'tflite'; there are: onnxruntime, openvino"):
        open_engine(graph, variant, "tflite")


@pytest.mark.parametrize(
    ("asked", "extras"),
    [
        ("onnxruntime", ["clipedge[cpu]", "clipedge[gpu]"]),
        ("openvino", ["clipedge[openvino]"]),
        (None, ["clipedge[cpu]", "clipedge[gpu]", "clipedge[openvino]"]),
    ],
)
def test_a_backend_that_is_not_installed_names_what_to_install(
    demo_bundle: Path, asked: str | None, extras: list[str]
) -> None:
    missing = BACKENDS if asked is None else (asked,)
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"  # what Python itself makes of a missing package
        "import clipedge\n"
        f"try: clipedge.load({str(demo_bundle)!r}, backend={asked!r})\n"
        "except clipedge.MissingDependencyError as error: print(error)"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert output.count("pip install") == len(missing)
    assert all(extra in output for extra in extras)


@pytest.mark.parametrize("installed", BACKENDS)
def test_no_backend_named_gives_the_one_that_is_installed(
    graph: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch, installed: str
) -> None:
    (other,) = set(BACKENDS) - {installed}
    monkeypatch.delitem(sys.modules, f"clipedge.backends.{other}")
    monkeypatch.setitem(sys.modules, other, None)
    assert open_engine(graph, variant).name == installed
    with pytest.raises(MissingDependencyError, match="is not installed"):
        open_engine(graph, variant, other)


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
    graph: Path, variant: Variant, backend: str, batch: npt.NDArray[np.generic], found: str
) -> None:
    engine = open_engine(graph, variant, backend)
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
def test_a_broken_graph_is_refused_in_one_line(  # type: ignore[no-untyped-def]
    graph: Path, variant: Variant, backend: str, tmp_path: Path, damage, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copy(graph, tmp_path))
    damage(copy)
    with pytest.raises(BackendError, match=rf"{TITLES[backend]} .* refuses {copy.name}: ") as error:
        open_engine(copy, variant, backend)
    assert capfd.readouterr() == ("", "")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_manifest_with_other_tensor_names_than_its_graph_is_refused(
    graph: Path, variant: Variant, backend: str, side: str
) -> None:
    renamed: tuple[TensorSpec, ...] = tuple(replace(spec, name="other") for spec in getattr(variant, side))
    other = replace(variant, inputs=renamed) if side == "inputs" else replace(variant, outputs=renamed)
    with pytest.raises(BackendError, match="other"):
        open_engine(graph, other, backend)(noise(1))


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
    monkeypatch.setattr(cpu, "Path", lambda path: cpuinfo)
    monkeypatch.setattr("platform.machine", lambda: machine)
    try:
        entry = session_options().get_session_config_entry("session.x64quantprecision")
    except RuntimeError:  # not set
        entry = None
    assert entry == ("1" if expected else None)
