"""Several variants in one bundle, layers left in float where the proof needs it, and calibrations kept in a file."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import onnx
import pytest
from safetensors.torch import load_file, save_file

import clipedge
from clipedge.bundle import open_bundle
from clipedge.calibration import scenes
from clipedge.calibration.cache import CalibrationCache, load_cache, save_cache
from clipedge.cli import main
from clipedge.errors import UsageError
from clipedge.export import export, mixed, variants
from clipedge.export.checkpoints import DEMO_CHECKPOINT
from clipedge.export.report import Report, report_lines
from clipedge.model import choose_variant, variant_name


def copy_of_the_demonstration_model(folder: Path) -> Path:
    return Path(shutil.copytree(DEMO_CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.py")))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    scenes.write_folder(folder, "calibration", 90, width=80, height=64, by_label=True)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_demonstration_model(tmp_path_factory.mktemp("model") / "my-clip")


@pytest.fixture(scope="module")
def several(checkpoint: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Report]:
    """Both precisions for both targets: (bundle, calibration cache, report)."""
    folder = tmp_path_factory.mktemp("several")
    report = export(
        checkpoint,
        folder / "bundle",
        precision=["int8", "fp32"],
        target=["x86", "arm"],
        calibration_data=photos,
        text=False,
        calibration_cache=folder / "cache",
    )
    return folder / "bundle", folder / "cache", report


def test_one_bundle_holds_every_variant_each_with_its_proof(several: tuple[Path, Path, Report]) -> None:
    bundle = open_bundle(several[0])
    found = {variant_name(variant): variant for variant in bundle.manifest.variants}
    assert set(found) == {"int8.x86", "int8.arm", "fp32"}
    here = choose_variant(bundle, "image", None)
    assert here.precision == "int8" and here.target in ("x86", "arm")
    for name, variant in found.items():
        assert variant.proof is not None and variant.proof.samples == 30
        clip = clipedge.load(several[0], variant=name)
        assert clip.encode_image(scenes.labelled_pictures("test", 3)[0]).shape == (3, 128)
    assert found["fp32"].proof.median_centred_cosine > found["int8.x86"].proof.median_centred_cosine  # type: ignore[union-attr]


def test_every_variant_has_its_report(several: tuple[Path, Path, Report]) -> None:
    bundle, _, report = several
    assert [found.variant_name for found in (report, *report.also)] == ["int8.x86", "int8.arm", "fp32"]
    written = {path.name for path in bundle.glob("report*")}
    names = ("report", "report.int8.arm", "report.fp32")
    assert written == {f"{name}.{kind}" for name in names for kind in ("json", "html")}
    for name, found in zip(names, (report, *report.also), strict=True):
        stored = json.loads((bundle / f"{name}.json").read_text())
        assert (stored["precision"], stored["target"]) == (found.precision, found.target)
        assert stored["passed"] and bool(stored["layers"]) == (found.precision == "int8")
        assert bool(stored["calibration"]) == (found.precision == "int8")
    text = "\n".join(report_lines(report))
    assert all(f"-> {name}, target {target}" in text for name, target in (("int8", "arm"), ("fp32", "any")))


def damaged(photos: Path, folder: Path) -> Path:
    """The same photos, but of those that calibrate (two of three) none can be read."""
    shutil.copytree(photos, folder)
    for index, path in enumerate(sorted(folder.rglob("*.png"))):
        if index % 3 != 2:
            path.write_bytes(b"no picture")
    return folder


def test_from_the_cache_come_the_same_graphs_without_a_look_at_a_picture(
    several: tuple[Path, Path, Report],
    checkpoint: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, cache, _ = several
    before = cache.read_bytes()
    data, output = damaged(photos, tmp_path / "photos"), tmp_path / "bundle"
    options = ["--target", "arm,x86", "--calibration-cache", cache, "--calibration-data", data, "--output", output]
    assert main(["export", str(checkpoint), "--no-text", "--json", *map(str, options)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [found["target"] for found in (report, *report["also"])] == ["arm", "x86"]
    for name in ("image.int8.arm.onnx", "image.int8.x86.onnx"):
        assert (output / name).read_bytes() == (first / name).read_bytes()
    assert report["unreadable"] == [] and str(cache) in report["calibration"]
    provenance = open_bundle(first).manifest.provenance
    assert report["provenance"]["calibration_sha256"] == provenance.calibration_sha256
    assert cache.read_bytes() == before


def test_a_cache_of_another_model_is_refused(
    several: tuple[Path, Path, Report], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copy_of_the_demonstration_model(tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["visual_projection.weight"][0, 0] += 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    options = [
        "--calibration-data",
        photos,
        "--no-text",
        "--output",
        tmp_path / "out",
        "--calibration-cache",
        several[1],
    ]
    assert main(["export", str(other), *map(str, options)]) == 2
    assert "holds the calibration of another model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_cache_that_lacks_something_takes_no_other_pictures(
    several: tuple[Path, Path, Report], checkpoint: Path, tmp_path: Path
) -> None:
    """Half a calibration of these pictures and half of others would go by the name of one of them."""
    whole = load_cache(several[1])
    only_x86 = {key: value for key, value in whole.calibrations.items() if key[0] == "x86"}
    save_cache(tmp_path / "cache", CalibrationCache(whole.space_id, whole.pictures_sha256, only_x86))
    data = tmp_path / "others"
    scenes.write_folder(data, "proof", 12, width=80, height=64, by_label=True)
    with pytest.raises(UsageError, match=r"no calibration of the image tower for arm, and was made on other pictures"):
        export(
            checkpoint, tmp_path / "out", target="arm", calibration_data=data, text=False,
            calibration_cache=tmp_path / "cache",
        )  # fmt: skip


def test_half_precision_is_checked_on_the_pictures_that_a_cache_was_made_on(
    several: tuple[Path, Path, Report], checkpoint: Path, tmp_path: Path
) -> None:
    data = tmp_path / "others"
    scenes.write_folder(data, "proof", 12, width=80, height=64, by_label=True)
    options = {"calibration_data": data, "text": False, "calibration_cache": several[1]}
    with pytest.raises(UsageError, match="made on other pictures than those given now, on which half precision is"):
        export(checkpoint, tmp_path / "out", precision=("fp16", "int8"), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_inspect_prints_a_cache(several: tuple[Path, Path, Report], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(several[1])]) == 0
    shown = capsys.readouterr().out
    assert "image tower, target x86" in shown and "blocks.3.attn.value" in shown
    assert main(["inspect", str(several[1]), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    cache = load_cache(several[1])
    assert (facts["space_id"], facts["pictures_sha256"]) == (cache.space_id, cache.pictures_sha256)
    layer = facts["towers"][0]["layers"]["blocks.1.fc1"]
    assert layer["high"] == cache.calibrations["x86", "image"].layers["blocks.1.fc1"].limits.high


@pytest.fixture(scope="module")
def hard_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In one block half of the neurons give values a thousand times larger than the other half, and these count as
    much: no range for both exists, neither do weights, and no scale can be moved past a GELU."""
    folder = copy_of_the_demonstration_model(tmp_path_factory.mktemp("hard") / "hard-clip")
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    block = "vision_model.encoder.layers.1.mlp"
    for name in ("fc1.weight", "fc1.bias"):
        weights[f"{block}.{name}"][:256] *= 1000
    weights[f"{block}.fc2.weight"][:, :256] /= 1000
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.slow
def test_int8_leaves_in_float_what_the_proof_needs_and_no_more(
    hard_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "COST_MULTIPLY_ADDS", 0)  # a failed proof needs the costs, however long they take
    report = export(hard_checkpoint, tmp_path / "bundle", calibration_data=photos, text=False)
    assert report.passed
    assert [layer.layer for layer in report.layers if layer.in_float] == ["blocks.1.fc2"]
    dearest = max(report.layers, key=lambda layer: layer.cost or 0)
    assert dearest.layer == "blocks.1.fc2" and dearest.cost is not None and dearest.cost > 0.1
    share = 65 * 512 * 128 / sum(layer.multiply_adds for layer in report.layers)
    assert f"left in float, {100 * share:.1f} % of the multiply-adds: image blocks.1.fc2" in "\n".join(
        report_lines(report)
    )
    assert json.loads((tmp_path / "bundle" / "report.json").read_text())["layers"][7]["in_float"]
    model = onnx.load(tmp_path / "bundle" / "image.int8.x86.onnx")
    floats = {item.name for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    products = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in floats]
    assert products == ["blocks.1.fc2", "projection"]
    clipedge.load(tmp_path / "bundle")  # the manifest's hashes are those of the last attempt's file


def test_costs_of_a_large_tower_are_not_measured_when_the_proof_passes(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "COST_MULTIPLY_ADDS", 0)
    report = export(checkpoint, tmp_path / "bundle", calibration_data=photos, text=False)
    assert report.passed and {layer.cost for layer in report.layers} == {None}


def test_a_proof_that_half_of_the_work_in_float_cannot_save_leaves_the_old_bundle(
    hard_checkpoint: Path,
    photos: Path,
    several: tuple[Path, Path, Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(mixed, "MAX_FLOAT_SHARE", 0.05)  # the layer that would help has a tenth
    bundle = Path(shutil.copytree(several[0], tmp_path / "bundle"))
    before = digests(bundle)
    options = ["--calibration-data", photos, "--no-text", "--output", bundle, "--calibration-cache", tmp_path / "cache"]
    assert main(["export", str(hard_checkpoint), *map(str, options)]) == 1
    out, err = capsys.readouterr()
    assert "below the gate, no bundle written: image tower: median centred cosine is 0." in err
    assert "in INT8 cost most: image blocks.1.fc2," in err
    assert "FAILED" in out and "layers that cost most" in out
    assert digests(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"], "no half bundle, no cache"


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}
