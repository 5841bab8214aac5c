"""Whatever a user gets wrong: one clear line on stderr, nothing on stdout, the right exit code, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from clipedge.cli import main
from clipedge.export.checkpoints import DEMO_CHECKPOINT

Fails = Callable[..., str]


@pytest.fixture
def fails(capfd: pytest.CaptureFixture[str]) -> Fails:
    """Call the command line; returns its one line on stderr after checking the contract of a failure."""

    def call(code: int, *arguments: str | Path) -> str:
        try:
            found = main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            found = int(error.code or 0)
        out, err = capfd.readouterr()
        assert found == code, err
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("clipedge: ")
        assert "Traceback" not in line
        assert "Error(" not in line
        return line

    return call


@pytest.fixture
def bundle(demo_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_bundle, tmp_path / "bundle")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    PIL.Image.new("RGB", (40, 30), "red").save(path)
    return path


# ---- the call itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "VERB"),
        (["clasify", "b", "p.png"], "invalid choice: 'clasify'"),
        (["classify"], "bundle, image"),
        (["classify", "b"], "image"),
        (["classify", "b", "p.png", "--top", "many"], "invalid int value: 'many'"),
        (["classify", "b", "p.png", "--lables", "a"], "unrecognized arguments: --lables a"),
        (["eval", "b"], "directory"),
        (["inspect"], "bundle"),
        (["inspect", "b", "--threads", "two"], "invalid int value: 'two'"),
        (["export"], "--output"),
    ],
)
def test_a_call_that_cannot_be_parsed(fails: Fails, arguments: list[str], message: str) -> None:
    line = fails(2, *arguments)
    assert message in line
    assert "--help` shows how" in line


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"clipedge {version('clipedge')}\n")


@pytest.mark.parametrize("verb", ["", "classify", "eval", "explain", "inspect", "export"])
def test_help_is_no_failure(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"] if verb else ["--help"])
    assert end.value.code == 0
    assert "usage: clipedge" in capsys.readouterr().out


# ---- bundles -------------------------------------------------------------------------------------------------


def graph(bundle: Path) -> Path:
    return next(bundle.glob("image.*.onnx"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return lambda bundle: edit(bundle / "clipedge.json", change)


def golden_elsewhere(path: str) -> Callable[[Path], object]:
    return manifest(lambda document: document["files"][0].update(path=path))


def change_a_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def link_graph_outside(bundle: Path) -> None:
    inside = graph(bundle)
    inside.symlink_to(inside.rename(bundle.parent / "outside.onnx"))


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (shutil.rmtree, 2, "the path does not exist"),
        (lambda bundle: (bundle / "clipedge.json").unlink(), 2, "is not a bundle: it has no clipedge.json"),
        (lambda bundle: (bundle / "clipedge.json").write_text("{"), 1, "is not JSON"),
        (lambda bundle: os.truncate(bundle / "clipedge.json", 700), 1, "is not JSON"),
        (manifest(lambda d: d.update(schema_version=7)), 1, "schema version 7, this clipedge reads version 1"),
        (manifest(lambda d: d.pop("space_id")), 1, "missing field space_id"),
        (golden_elsewhere("/etc/passwd"), 1, "'/etc/passwd', which leaves the bundle's folder"),
        (golden_elsewhere("../golden.safetensors"), 1, "which leaves the bundle's folder"),
        (link_graph_outside, 1, "a link that leaves the bundle's folder"),
        (lambda bundle: change_a_byte(graph(bundle)), 1, "is not the file that was exported"),
        (lambda bundle: os.truncate(graph(bundle), 5000), 1, "is not the file that was exported"),
        (lambda bundle: graph(bundle).unlink(), 1, "is missing"),
        (lambda bundle: os.truncate(bundle / "prompts" / "default.safetensors", 999), 1, "no readable prompt bank"),
    ],
    ids=[
        "wrong path", "no bundle", "corrupt manifest", "cut manifest", "newer schema", "field lost", "absolute path",
        "path with dots", "link outside", "edited graph", "truncated graph", "missing graph", "damaged bank",
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["classify", "inspect", "classify --json"])
def test_a_bundle_that_is_none_or_was_altered(
    fails: Fails, bundle: Path, picture: Path, verb: str, damage: Callable[[Path], object], code: int, message: str
) -> None:
    damage(bundle)
    name, *options = verb.split()
    line = fails(code, name, bundle, *([picture] if name == "classify" else []), *options)
    assert message in line
    assert "export" in line or "copy" in line.lower(), "it says what to do"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "tpu"], "unknown backend 'tpu'; there are: onnxruntime"),
        (["--variant", "fp8"], "no image tower fp8; there are: int8.x86"),
        (["--threads", "0"], "threads is 0; it has to be 1 or more"),
        (["--top", "0"], "--top is how many labels to show: expected 1 or more, found 0"),
        (["--bank", "pets"], "no prompt bank 'pets'; there are: default"),
        (["--bank", "default", "--labels", "a,b"], "give one"),
        (["--template", "a {}"], "--template needs --labels"),
        (["--labels", " , "], "names no label"),
        (["--labels", "a,b,a"], "found more than once: a"),
        (["--labels", "missing.txt"], "there is no such file"),
        (["--labels", "a,b", "--template", "a photo"], "exactly once"),
    ],
)
def test_options_that_cannot_be_used(
    fails: Fails, demo_bundle: Path, picture: Path, options: list[str], message: str
) -> None:
    assert message in fails(2, "classify", demo_bundle, picture, *options)


# ---- pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: os.truncate(path, 60), "damaged or cut off"),
        (lambda path: path.write_bytes(b""), "found 0 bytes"),
        (lambda path: path.write_text("no picture"), "found something that is none"),
        (lambda path: path.unlink(), "there is no such file"),
        (lambda path: (path.unlink(), path.mkdir()), "this is a folder, not a picture"),
    ],
    ids=["truncated", "empty", "text", "missing", "folder"],
)
def test_a_picture_that_cannot_be_read(
    fails: Fails, demo_bundle: Path, picture: Path, make: Callable[[Path], object], message: str
) -> None:
    make(picture)
    line = fails(1, "classify", demo_bundle, picture)
    assert str(picture) in line
    assert message in line


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "there is no folder of pictures at"),
        ([], "holds no pictures"),
        (["notes.txt"], "holds no pictures"),
        (["stray.png"], "one sub-folder for each class"),
        (["cat/damaged.png"], "none of the 1 pictures can be read"),
    ],
    ids=["missing", "empty", "no pictures", "no classes", "damaged"],
)
def test_a_folder_that_cannot_be_evaluated(
    fails: Fails, demo_bundle: Path, tmp_path: Path, names: list[str] | None, message: str
) -> None:
    folder = tmp_path / "pictures"
    for name in names or []:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"nothing")
    if names is not None:
        folder.mkdir(exist_ok=True)
    assert message in fails(2, "eval", demo_bundle, folder)


# ---- export --------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Another model than the demonstration's: INT8 needs pictures for it."""
    return shutil.copytree(DEMO_CHECKPOINT, tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (shutil.rmtree, [], "checkpoint"),
        (lambda path: [file.unlink() for file in path.iterdir() if file.is_file()], [], "config.json"),
        (lambda path: edit(path / "config.json", lambda d: d.update(model_type="siglip2")), [], "siglip2"),
        (lambda path: (path / "config.json").write_text("{"), [], "config.json"),
        (lambda path: os.truncate(path / "model.safetensors", 5000), ["--precision", "fp32"], "model.safetensors"),
        (lambda path: None, ["--precision", "int3"], "unknown precision 'int3'; there are: fp32, fp16, int8, fp8"),
        (lambda path: None, ["--target", "abacus"], "unknown target 'abacus'; there are: x86, arm"),
        (lambda path: None, ["--precision", "int8"], "INT8 needs calibration pictures"),
        (lambda path: None, ["--calibration-data", "no/such/folder"], "no folder of pictures at no/such/folder"),
    ],
    ids=[
        "missing", "empty folder", "variable resolution", "corrupt config", "truncated weights", "precision", "target",
        "INT8 without pictures", "no such pictures",
    ],
)  # fmt: skip
def test_an_export_that_cannot_be_done(
    fails: Fails, checkpoint: Path, tmp_path: Path, change: Callable[[Path], object], options: list[str], message: str
) -> None:
    change(checkpoint)
    assert message in fails(2, "export", checkpoint, "--output", tmp_path / "new", *options)
    assert not (tmp_path / "new").exists()


def save_pictures(folder: Path, count: int, **changes: Any) -> Path:
    """``count`` different pictures, or the same one, or plain ones, or files that are none."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        seed = 0 if changes.get("same") else i
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        pixels = pixels[:1, :1] if changes.get("plain") else pixels
        PIL.Image.fromarray(pixels).resize((64, 64)).save(folder / f"{i}.png")
        if changes.get("broken"):
            (folder / f"{i}.png").write_bytes(b"no picture")
    return folder


def cut_tar(folder: Path) -> Path:
    save_pictures(folder, 9)
    with tarfile.open(folder / "a.tar", "w") as archive:
        for path in sorted(folder.glob("*.png")):
            archive.add(path, path.name)
    os.truncate(folder / "a.tar", 5000)
    return folder / "a.tar"


def write_list(folder: Path, text: str) -> Path:
    path = save_pictures(folder, 3) / "list.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: save_pictures(folder, 0), "holds no pictures"),
        (lambda folder: write_list(folder, "# none\n"), "names no picture"),
        (lambda folder: write_list(folder, "0.png\n1.png\n2.png"), "holds 3 pictures; calibration and proof need"),
        (cut_tar, "a.tar is no tar, damaged or cut off"),
        (lambda folder: save_pictures(folder, 12, broken=True), "none of the 4 pictures"),
        (lambda folder: save_pictures(folder, 12, plain=True), "each of the 4 pictures"),
        (lambda folder: save_pictures(folder, 12, same=True), "all the same picture"),
    ],
    ids=["empty folder", "empty list", "short list", "cut tar", "all unreadable", "all one colour", "all the same"],
)
def test_an_int8_export_with_pictures_that_prove_nothing(
    fails: Fails, checkpoint: Path, tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    data = make(tmp_path / "data")
    options = ["--calibration-data", data, "--no-text", "--output", tmp_path / "new"]
    assert message in fails(2, "export", checkpoint, *options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-drop", "-1"], "--max-drop is -1 points; it has to be 0 or more"),
        (["--max-drop", "nan"], "--max-drop is nan points; it has to be 0 or more"),
        (["--max-drop", "2"], "--max-drop takes at least 100 proof pictures with known labels, found 0"),
        (["--precision", "int8,fp64"], "unknown precision 'fp64'; there are: fp32, fp16, int8, fp8"),
        (["--target", "x86,,arm"], "unknown target ''; there are: x86, arm"),
        (["--calibration-cache", "no/such/folder/file"], "in a folder that does not exist"),
        (["--calibration-cache", "."], "is no calibration cache of clipedge"),
    ],
)
def test_an_export_with_options_that_cannot_be_met(
    fails: Fails, checkpoint: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    data = save_pictures(tmp_path / "data", 12)
    options = ["--calibration-data", str(data), "--no-text", "--output", str(tmp_path / "new"), *options]
    assert message in fails(2, "export", checkpoint, *options)
    assert not (tmp_path / "new").exists()


def test_inspecting_a_file_that_is_no_calibration_cache(fails: Fails, bundle: Path) -> None:
    assert "is no calibration cache" in fails(2, "inspect", bundle / "clipedge.json")


def test_an_export_onto_something_else_is_refused(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "would be lost" in fails(2, "export", "--precision", "fp32", "--output", tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_process_fails_in_the_same_way(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clipedge", "inspect", str(tmp_path / "none")]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("clipedge: there is no bundle at ")
    assert outcome.stderr.count("\n") == 1
