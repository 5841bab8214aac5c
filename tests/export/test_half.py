"""Bundles in half precision: proven in it, and what half precision cannot hold is left in float32 and said so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto

import clipedge
from clipedge.backends import EngineOptions
from clipedge.backends.openvino import compile_properties
from clipedge.bundle import open_bundle
from clipedge.calibration import scenes
from clipedge.calibration.half.convert import to_half
from clipedge.calibration.half.evaluate import HalfEvaluator
from clipedge.calibration.half.magnitudes import magnitudes
from clipedge.calibration.half.pixels import scaled_pixels
from clipedge.calibration.half.plan import LIMIT, operations_in_float32
from clipedge.cli import main
from clipedge.errors import BackendError
from clipedge.export import export
from clipedge.export import half as half_variants
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.demo.outliers import write_outlier_twin
from clipedge.export.graphs import write_image_graph
from clipedge.export.half import half_failures
from clipedge.export.report import Report, report_lines
from clipedge.export.towers import build_image_tower
from clipedge.export.variants import ProvenTower
from clipedge.export.verify import GATE
from clipedge.model import choose_variant
from clipedge.selftest import centred_cosines

FACTOR = 1e5  # of some value channels: beyond half precision, and the weights that read them are below it
PICTURES = 24
NEEDED = 0.999


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    scenes.write_folder(folder, "calibration", 48, width=64, height=64, by_label=True)
    return folder


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_outlier_twin(DEMO_CHECKPOINT, tmp_path_factory.mktemp("twin") / "outliers", FACTOR)


@pytest.fixture(scope="module")
def exported(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The demonstration model in half precision and float32, with patches: (bundle, report)."""
    bundle = tmp_path_factory.mktemp("half") / "demo-fp16"
    options = {"calibration_data": photos, "labels": scenes.CLASS_NAMES, "dense": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(half_variants, "HALF_INPUTS", 32)
        return bundle, export(None, bundle, precision=("fp16", "fp32"), **options)  # type: ignore[arg-type]


def test_the_demonstration_model_passes_in_real_half_precision(exported: tuple[Path, Report]) -> None:
    _, report = exported
    assert report.passed and report.precision == "fp16" and report.target == "any"
    assert set(report.towers) == {"image", "text", "dense"} and not report.kept
    for tower in report.towers.values():
        assert tower.half_parity is not None
        assert tower.half_parity.median_centred_cosine >= NEEDED and tower.half_parity.p1_centred_cosine >= 0.995
        assert tower.half_parity.max_difference > tower.parity.max_difference > 0, "it is not what the engine computes"
        assert tower.exported_bytes < 0.6 * tower.source_bytes
    (fp32,) = report.also
    assert all(tower.half_parity is None for tower in fp32.towers.values())


def test_the_manifest_keeps_the_proof_in_half_precision(exported: tuple[Path, Report]) -> None:
    bundle, report = exported
    variants = {v.tower: v for v in open_bundle(bundle).manifest.variants if v.precision == "fp16"}
    assert {name: v.files[0].path for name, v in variants.items()} == {
        name: f"{name}.fp16.onnx" for name in ("image", "text", "dense")
    }
    for name, variant in variants.items():
        proof, parity = variant.proof, report.towers[name].half_parity
        assert proof is not None and parity is not None and variant.target == "any"
        assert proof.engine == f"onnx's reference evaluator {onnx.__version__}"
        assert (proof.samples, proof.median_centred_cosine) == (parity.samples, parity.median_centred_cosine)
        assert variant.inputs[0].dtype in ("uint8", "int64") and variant.outputs[0].dtype == "float32"
    assert choose_variant(open_bundle(bundle), "image", None).precision == "fp32", "a CPU would only widen it"
    assert open_bundle(bundle).manifest.provenance.calibration_sha256


def test_report_and_page_say_what_was_computed_how(exported: tuple[Path, Report]) -> None:
    bundle, report = exported
    text = "\n".join(report_lines(report))
    assert "float16 weights, float32 arithmetic" in text and "in real half precision, 16 inputs" in text
    assert "checked for overflow on 32 pictures" in text
    assert "image tower in real half precision (16 inputs)" in (bundle / "report.html").read_text()
    stored = json.loads((bundle / "report.json").read_text())
    assert stored["kept"] == [] and stored["towers"]["image"]["half_parity"]["samples"] == 16


def test_a_device_loads_it_and_says_in_what_it_computes(
    exported: tuple[Path, Report], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, _ = exported
    pictures = scenes.labelled_pictures("test", 12)[0]
    for backend in ("onnxruntime", "openvino"):
        clip = clipedge.load(bundle, variant="fp16", backend=backend)
        assert clip.image_engine.arithmetic == "float16 weights, float32 arithmetic"
        expected = clipedge.load(bundle, variant="fp32", backend=backend).encode_image(list(pictures))
        found = clip.encode_image(list(pictures))
        assert centred_cosines(expected, found, expected.mean(axis=0)).min() > NEEDED
    assert main(["inspect", str(bundle), "--variant", "fp16", "--backend", "onnxruntime"]) == 0
    shown = capsys.readouterr().out
    assert "image fp16" in shown and "onnx's reference evaluator" in shown
    assert "computed in float16 weights, float32 arithmetic" in shown


def image_graph(folder: Path, workspace: Path) -> tuple[onnx.ModelProto, tuple[float, ...]]:
    """A checkpoint's image tower in float32, its pixels brought to half precision's range."""
    checkpoint, path = load_checkpoint(folder), workspace / "image.onnx"
    write_image_graph(build_image_tower(checkpoint), path)
    mean = tuple(255 * mean for mean in checkpoint.preprocessing.mean)
    return scaled_pixels(onnx.load(path), mean), mean


def source_embeds(folder: Path, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        return build_image_tower(load_checkpoint(folder))(torch.from_numpy(pixels)).numpy()


def test_of_an_outlier_twin_naive_conversion_overflows_and_ours_does_not(twin: Path, tmp_path: Path) -> None:
    pixels = scenes.labelled_pictures("test", PICTURES)[0]
    expected = source_embeds(twin, pixels)
    graph, _ = image_graph(twin, tmp_path)
    naive = to_half(graph)
    assert np.isnan(HalfEvaluator(naive)(pixels)).all()
    onnx.save(naive, tmp_path / "naive.onnx")
    compiled = openvino.Core().compile_model(tmp_path / "naive.onnx", "CPU", compile_properties(EngineOptions()))
    assert np.isfinite(compiled({"pixels": pixels})[0]).all(), "an engine that computes in float32 hides it"

    measured = magnitudes(graph, [scenes.labelled_pictures("calibration", 32)[0]])
    assert max(measured.values()) > 2 * LIMIT
    kept = operations_in_float32("image", graph, measured)
    model = to_half(graph, [item.operation for item in kept])
    found = HalfEvaluator(model)(pixels)
    cosines = centred_cosines(expected, found, expected.mean(axis=0))
    assert np.median(cosines) >= NEEDED and cosines.min() >= 0.995
    assert len(kept) < len(graph.graph.node) / 2
    halves = {item.name for item in model.graph.initializer if item.data_type == TensorProto.FLOAT16}
    assert {"blocks.0.fc1.weight", "blocks.0.fc2.weight", "embedding.patch.weight"} <= halves


def test_torch_in_half_precision_overflows_on_the_twin_too(twin: Path) -> None:
    """The source itself, unfolded: its norms' gains give what no half can hold."""
    pixels = scenes.labelled_pictures("test", 2)[0]
    for folder, finite in ((DEMO_CHECKPOINT, True), (twin, False)):
        tower = build_image_tower(load_checkpoint(folder)).half()
        with torch.inference_mode():
            embeds = tower(torch.from_numpy(pixels))
        assert embeds.dtype == torch.float16 and bool(embeds.isfinite().all()) == finite


def test_the_export_of_a_twin_names_what_stays_in_float32(
    twin: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_variants, "HALF_INPUTS", 16)
    report = export(twin, tmp_path / "bundle", precision="fp16", calibration_data=photos)
    assert report.passed
    for tower in report.towers.values():
        assert tower.half_parity is not None and tower.half_parity.median_centred_cosine >= NEEDED
    operations = {(item.tower, item.operation) for item in report.kept}
    assert {("image", "blocks.0.attn.qkv"), ("text", "blocks.0.attn.qkv"), ("image", "blocks.0.attn.out")} <= operations
    assert not any("fc1" in operation or "gelu" in operation for _, operation in operations)
    text = "\n".join(report_lines(report))
    assert "left in float32, since half precision cannot hold them: image blocks.0.attn.qkv (" in text
    assert "Left in float32" in (tmp_path / "bundle" / "report.html").read_text()
    stored = json.loads((tmp_path / "bundle" / "report.json").read_text())["kept"]
    assert {(item["tower"], item["operation"]) for item in stored} == operations
    model = onnx.load(tmp_path / "bundle" / "image.fp16.onnx")
    kinds = {item.name: item.data_type for item in model.graph.initializer}
    assert kinds["blocks.0.attn.qkv.weight"] == TensorProto.FLOAT
    assert kinds["blocks.0.fc1.weight"] == TensorProto.FLOAT16


def test_a_proof_input_that_overflows_is_an_error(
    twin: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would be if no calibration picture came near: the range check is switched off."""
    monkeypatch.setattr(half_variants, "operations_in_float32", lambda *arguments: ())
    with pytest.raises(BackendError, match="the image tower overflows in half precision on 16 of 16 proof inputs"):
        export(twin, tmp_path / "bundle", precision="fp16", calibration_data=photos, text=False)
    assert not (tmp_path / "bundle").exists()


def test_half_precision_has_a_gate_of_its_own(exported: tuple[Path, Report]) -> None:
    """0.999, where INT8's is 0.985; what the engine makes of it does not count here."""
    parity = exported[1].towers["image"].parity

    def failures(median: float, p1: float) -> list[str]:
        found = dataclasses.replace(parity, median_centred_cosine=median, p1_centred_cosine=p1)
        half = ProvenTower(None, None, None, found)  # type: ignore[arg-type]
        return half_failures({"image": dataclasses.replace(half, parity=parity, half=half)}, GATE)

    assert failures(0.9991, 0.991) == []
    assert failures(0.998, 0.98) == [
        "half-precision image tower: median centred cosine is 0.9980, the gate asks for 0.999 or more",
        "half-precision image tower: 1st percentile of the centred cosine is 0.9800, the gate asks for 0.99 or more",
    ]


@pytest.mark.slow
def test_the_hubs_layout_has_its_name_for_it(photos: Path, tmp_path: Path) -> None:
    export(None, tmp_path / "hub", precision="fp16", calibration_data=photos, layout="huggingface", text=False)
    assert [path.name for path in (tmp_path / "hub" / "onnx").iterdir()] == ["vision_model_fp16.onnx"]
