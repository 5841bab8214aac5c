"""export() from a checkpoint folder to a bundle, as a user runs it: results, refusals, interruptions."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import clipedge
from clipedge.calibration import scenes, storage
from clipedge.cli import main
from clipedge.errors import CheckpointError, UsageError
from clipedge.export import export
from clipedge.export.checkpoints import DEMO_CHECKPOINT


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the demonstration checkpoint: any folder but the one in the package is a user's own model."""
    return Path(shutil.copytree(DEMO_CHECKPOINT, tmp_path / "my-clip", ignore=shutil.ignore_patterns("*.py")))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder with one sub-folder for each class."""
    folder = tmp_path_factory.mktemp("photos")
    scenes.write_folder(folder, "calibration", 90, width=80, height=64, by_label=True)
    return folder


def test_int8_of_the_demonstration_model_passes_its_gate(demo_bundle: Path) -> None:
    report = json.loads((demo_bundle / "report.json").read_text())
    assert report["passed"] and report["failures"] == []
    assert report["zero_shot"]["samples"] >= 2000 and report["zero_shot"]["labels"] == len(scenes.CLASS_NAMES)
    assert report["zero_shot"]["drop_points"] <= 1.0
    image = report["towers"]["image"]
    assert image["exported_bytes"] < 0.35 * image["source_bytes"]


def test_the_page_shows_the_report(demo_bundle: Path) -> None:
    report = json.loads((demo_bundle / "report.json").read_text())
    page = (demo_bundle / "report.html").read_text(encoding="utf-8")
    assert f"{100 * report['zero_shot']['exported_accuracy']:.2f} %" in page
    assert page.count("<svg") >= 3 and report["provenance"]["calibration_sha256"] in page


def test_int8_towers_are_integer_and_standard(demo_bundle: Path) -> None:
    for tower in ("image", "text"):
        model = onnx.load(demo_bundle / f"{tower}.int8.x86.onnx")
        assert model.ir_version <= 10
        assert [(item.domain, item.version <= 19) for item in model.opset_import] == [("", True)]
        floats = {item.name for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
        products = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in floats]
        assert products == ["projection"]


def test_int8_matches_the_exact_model_on_pictures(demo_bundle: Path, demo_bundle_fp32: Path) -> None:
    pictures, _ = scenes.labelled_pictures("test", 64)
    exact, rounded = (clipedge.load(bundle).encode_image(pictures) for bundle in (demo_bundle_fp32, demo_bundle))
    centred = [embeds - exact.mean(axis=0) for embeds in (exact, rounded)]
    cosines = (centred[0] * centred[1]).sum(axis=1) / np.prod([np.linalg.norm(c, axis=1) for c in centred], axis=0)
    assert np.median(cosines) > 0.985


def test_bundle_of_a_users_model_with_its_own_pictures(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    report = export(checkpoint, output, target="arm", calibration_data=photos, templates=["a {}"], text=False)
    assert report.passed and report.zero_shot is not None and report.zero_shot.source_accuracy is not None
    assert sorted(path.name for path in output.iterdir()) == [
        "README.md", "clipedge.json", "golden.safetensors", "image.int8.arm.onnx", "prompts", "report.html",
        "report.json",
    ]  # fmt: skip
    clip = clipedge.load(output, variant="int8.arm")
    bank = clip.saved_bank("default")
    assert set(bank.labels) == {path.name for path in photos.iterdir()} and bank.templates == ("a {}",)
    with pytest.raises(UsageError, match="no text tower"):
        clip.encode_text(["a cat"])


def test_bundles_of_one_model_share_the_space(demo_bundle: Path, demo_bundle_fp32: Path) -> None:
    clips = [clipedge.load(bundle) for bundle in (demo_bundle, demo_bundle_fp32)]
    assert clips[0].manifest.space_id == clips[1].manifest.space_id
    clips[0].classifier(clips[1].saved_bank("default"))


def test_a_tar_with_unreadable_pictures_exports_and_names_them(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for i, path in enumerate(sorted(photos.rglob("*.png"))):
            data = path.read_bytes()[: 100 if i in (4, 8) else None]  # one to calibrate, one to prove
            stem = f"{i:03}" if i != 8 else "008\udcff"  # a byte that is no UTF-8
            for name, content in ((f"{stem}.png", data), (f"{stem}.cls", path.parent.name.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    options = ["--calibration-data", str(tmp_path / "photos.tar"), "--no-text", "--output", str(tmp_path / "bundle")]
    assert main(["export", str(checkpoint), *options, "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert ["'004.png'" in line or r"'008\udcff.png'" in line for line in report["unreadable"]] == [True, True]
    assert report["zero_shot"]["samples"] == 29
    assert "1 of 60 pictures cannot be read and are left out" in err and "'004.png'" in err
    assert "1 of 30 pictures cannot be read and are left out" in err and r"'008\udcff.png'" in err


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_weights_beyond_one_file_lie_beside_the_graph(
    backend: str, checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MAX_INLINE_BYTES", 1000)
    export(checkpoint, tmp_path / "bundle", precision="fp32", calibration_data=photos, text=False)
    manifest = json.loads((tmp_path / "bundle" / "clipedge.json").read_text())
    names = [entry["path"] for entry in manifest["variants"][0]["files"]]
    assert names == ["image.fp32.onnx", "image.fp32.onnx.data"]
    clip = clipedge.load(tmp_path / "bundle", backend=backend)
    assert clip.encode_image(next(photos.rglob("*.png"))).shape == (1, manifest["embedding_dim"])
    weights = tmp_path / "bundle" / names[1]
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(clipedge.BundleError, match=re.escape(names[1])):
        clipedge.load(tmp_path / "bundle", backend=backend)


def test_classes_that_are_numbers_count_the_labels(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in photos.iterdir())
    lines = [f"{path}\t{names.index(path.parent.name)}" for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    data = tmp_path / "list.txt"
    report = export(checkpoint, tmp_path / "bundle", precision="fp32", calibration_data=data, labels=names, text=False)
    assert report.zero_shot is not None and report.zero_shot.source_accuracy is not None
    assert report.zero_shot.source_accuracy > 0.8  # with any other order of the labels: next to nothing


def test_replacing_a_bundle_keeps_the_users_prompt_banks(demo_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(demo_bundle, tmp_path / "bundle"))
    clip = clipedge.load(bundle)
    clip.prompt_bank(["red", "blue"]).save(bundle / "prompts" / "mine.safetensors")
    export(DEMO_CHECKPOINT, bundle, precision="fp32", text=False)
    assert clipedge.load(bundle).saved_bank("mine").labels == ("red", "blue")


def test_int8_without_calibration_pictures_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--calibration-data"):
        export(checkpoint, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("options", [{"precision": "int4"}, {"target": "tpu"}, {"labels": ["a", "a"]}, {"labels": []}])
def test_wrong_options_are_refused_by_name(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        export(None, tmp_path / "bundle", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="would be lost"):
        export(None, tmp_path, precision="fp32")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_checkpoint_that_is_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        export(tmp_path, tmp_path / "bundle", calibration_data=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("there_before", [False, True])
def test_a_killed_export_leaves_the_previous_state(there_before: bool, demo_bundle: Path, tmp_path: Path) -> None:
    """Killed at several moments: nothing, or the old bundle whole; and the next export tidies up."""
    bundle = tmp_path / "bundle"
    if there_before:
        shutil.copytree(demo_bundle, bundle)
    before = {path.name: path.read_bytes() for path in bundle.glob("*.*")}
    command = [sys.executable, "-m", "clipedge", "export", "--precision", "fp32", "--no-text", "--output", str(bundle)]
    for files_written in (0, 1, 2, 3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        staging = tmp_path / f".bundle.{process.pid}.staging"
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if staging.exists() and len(list(staging.iterdir())) >= files_written:
                break
            time.sleep(0.002)
        assert process.poll() is None, "the export ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert bundle.exists() == there_before
        assert {path.name: path.read_bytes() for path in bundle.glob("*.*")} == before
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    clipedge.load(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_disk_that_fills_up_leaves_the_previous_state(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: writing fails in the same place and manner."""
    code = (
        "import resource, sys; from clipedge.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000));"
        "sys.exit(main(['export', '--precision', 'fp32', '--no-text', '--output', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "bundle")], capture_output=True, text=True)
    assert done.returncode == 1 and "unchanged" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
