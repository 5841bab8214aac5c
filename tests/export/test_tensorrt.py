"""--target tensorrt: a proven bundle whose graphs keep TensorRT's rules; what other machines make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

import clipedge
from clipedge.calibration import scenes
from clipedge.cli import main
from clipedge.errors import MissingDependencyError, UsageError
from clipedge.export import convert, export
from clipedge.export.report import Report
from clipedge.export.tensorrt_rules import broken_rules


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    scenes.write_folder(folder, "calibration", 60, width=64, height=64, by_label=True)
    return folder


@pytest.fixture(scope="module")
def bundle(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("tensorrt") / "bundle"
    return folder, export(None, folder, target="tensorrt", calibration_data=photos)


def test_both_towers_pass_the_gate_and_keep_the_rules(bundle: tuple[Path, Report]) -> None:
    folder, report = bundle
    assert report.passed and report.target == "tensorrt" and report.quantizer == "clipedge"
    assert not any(layer.in_float for layer in report.layers)
    assert all(tower.parity.median_centred_cosine > 0.995 for tower in report.towers.values())
    for tower in ("image", "text"):
        assert broken_rules(onnx.load(folder / f"{tower}.int8.tensorrt.onnx")) == []


def test_other_machines_say_what_it_is_for_and_run_it_by_name(bundle: tuple[Path, Report]) -> None:
    folder, _ = bundle
    with pytest.raises(UsageError, match=r"there are: int8\.tensorrt.*Those for tensorrt are for NVIDIA GPUs"):
        clipedge.load(folder)
    clip = clipedge.load(folder, variant="int8.tensorrt", backend="onnxruntime")
    assert clip.image_engine.arithmetic == "int8 weights, float32 arithmetic"
    assert clip.image_engine.device == "cpu" and clip.encode_text("a red circle").shape == (1, 128)


def test_attention_in_int8_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, cache = tmp_path / "bundle", tmp_path / "cache"
    options = [
        "--no-text",
        "--target",
        "tensorrt",
        "--output",
        str(output),
        "--calibration-cache",
        str(cache),
        "--json",
    ]
    assert main(["export", *options, "--int8-attention"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    model = onnx.load(output / "image.int8.tensorrt.onnx")
    assert broken_rules(model) == []

    def in_integers(model: onnx.ModelProto) -> list[str]:
        return [node.name for node in model.graph.node if node.name.endswith(".scores") and "input0" in node.input[0]]

    assert in_integers(model) == [f"blocks.{index}.attn.scores" for index in range(3)]
    assert main(["export", *options]) == 0  # what the cache has beyond what was asked for is not taken
    assert in_integers(onnx.load(output / "image.int8.tensorrt.onnx")) == []


def test_attention_in_int8_is_for_tensorrt_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--int8-attention is for .* --target tensorrt, found INT8 for x86"):
        export(None, tmp_path / "out", int8_attention=True)


def test_a_graph_that_tensorrt_would_refuse_ends_the_export_with_its_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No architecture of ClipEdge gives one, so the float graph is spoilt on its way."""
    whole = convert.float_graph

    def spoilt(tower: Any, folder: Path) -> onnx.ModelProto:
        model = whole(tower, folder)
        last = model.graph.node[-1]
        last.input[0], before = "odd", last.input[0]
        model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Det", [before], ["odd"], name="odd.node"))
        return model

    monkeypatch.setattr("clipedge.export.variants.float_graph", spoilt)
    options = ["--no-text", "--precision", "fp32", "--target", "x86,tensorrt", "--output", str(tmp_path / "out")]
    assert main(["export", *options]) == 1
    error = capsys.readouterr().err
    assert "odd.node: Det is not in the list of supported operators [rule operator]" in error
    assert "onnx-tensorrt" in error and not (tmp_path / "out").exists()


# ---- the other quantizer (that runs in tests/origin, where it is installed) -----------------------------------


def test_model_optimizer_is_named_with_its_extra_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "modelopt", None)
    with pytest.raises(MissingDependencyError, match=r'Model Optimizer is not installed.*"clipedge\[modelopt\]"'):
        export(None, tmp_path / "out", target="tensorrt", text=False, quantizer="modelopt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantizer": "nncf", "target": "tensorrt"}, "unknown quantizer 'nncf'; there are: clipedge, modelopt"),
        ({"quantizer": "modelopt"}, "--target tensorrt, without --dense; found INT8 for x86"),
        ({"quantizer": "modelopt", "target": ["arm", "tensorrt"]}, "found INT8 for arm and INT8 for tensorrt"),
        ({"quantizer": "modelopt", "precision": "fp8"}, "found FP8 for x86"),
        ({"precision": "fp8", "target": "tensorrt"}, "add --quantizer modelopt --target tensorrt, or export in int8"),
        ({"quantizer": "modelopt", "precision": "fp32", "target": "tensorrt"}, "found nothing to quantize"),
        ({"quantizer": "modelopt", "target": "tensorrt", "dense": True}, "found --dense"),
    ],
)
def test_a_quantizer_for_something_else_is_refused_before_any_work(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export(None, tmp_path / "out", **options)
