"""``trtexec`` as the builder: which options it is given, what is read from its log, and that its engine is proven.

It is stood in for by a script that writes down its options, prints lines of a log of TensorRT 10.3 on a Jetson, and
answers an input with the source model's embedding of it, in the format of ``--exportOutput``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from clipedge.bundle import MANIFEST_NAME, file_entry, open_bundle
from clipedge.engines import trtexec
from clipedge.engines.build import build_engines
from clipedge.engines.cache import made_for, tensorrt_facts
from clipedge.errors import BackendError
from clipedge.selftest import GOLDEN_NAME

SCRIPT = """#!{python} -SE
import hashlib, json, sys
from pathlib import Path
options = dict(part.partition("=")[::2] for part in sys.argv[1:])
with open({calls!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
print("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec")
print("[01/02/2026-03:04:05] [I] Selected Device: Orin")
print("[01/02/2026-03:04:05] [I] Compute Capability: 8.7")
if {fault!r} and {fault!r} in options:
    print("[01/02/2026-03:04:05] [E] Error[4]: no such kernel")
    sys.exit(1)
if "--saveEngine" in options:
    Path(options["--saveEngine"]).write_bytes(b"plan")
else:
    name, _, file = options["--loadInputs"].partition(":")
    answers = json.loads(Path({answers!r}).read_text())
    values = answers[hashlib.sha256(Path(file).read_bytes()).hexdigest()]
    text = json.dumps([{{"name": "image_embeds", "dimensions": f"1x{{len(values)}}", "values": values}}])
    Path(options["--exportOutput"]).write_text(text.replace(str(values[0]), {first!r}) if {first!r} else text)
"""


class Program:
    def __init__(self, folder: Path, golden: Path, fault: str = "", first: str = "") -> None:
        self.calls_file = folder / "calls"
        path = folder / "bin" / "trtexec"
        path.parent.mkdir()
        tensors = load_file(golden)
        rows = zip(tensors["pixels"], tensors["image_embeds"], strict=True)
        answers = {hashlib.sha256(pixels.tobytes()).hexdigest(): embeds.tolist() for pixels, embeds in rows}
        (folder / "answers").write_text(json.dumps(answers))
        names = {"python": sys.executable, "calls": str(self.calls_file), "answers": str(folder / "answers")}
        path.write_text(SCRIPT.format(**names, fault=fault, first=first))
        path.chmod(0o755)
        self.folder = path.parent

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]


@pytest.fixture
def folder(demo_bundle_fp32: Path, tmp_path: Path) -> Path:
    """A bundle with few goldens: each costs a start of the program."""
    copy = shutil.copytree(demo_bundle_fp32, tmp_path / "bundle")
    save_file({name: tensor[:3] for name, tensor in load_file(copy / GOLDEN_NAME).items()}, copy / GOLDEN_NAME)
    manifest = open_bundle(copy).manifest
    files = [file_entry(copy, GOLDEN_NAME) if entry.path == GOLDEN_NAME else entry for entry in manifest.files]
    variants = [variant for variant in manifest.variants if variant.tower == "image"]
    manifest = replace(manifest, files=tuple(files), variants=tuple(variants))
    (copy / MANIFEST_NAME).write_text(manifest.to_json())
    return copy


@pytest.fixture
def program(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    made = Program(tmp_path, folder / GOLDEN_NAME)
    monkeypatch.setenv("PATH", f"{made.folder}:/usr/bin:/bin")
    return made


def build(folder: Path) -> list[object]:
    return build_engines(open_bundle(folder), "tensorrt", None, lambda *step: None)  # type: ignore[return-value]


def test_it_builds_and_proves_where_tensorrts_package_is_not(folder: Path, program: Program) -> None:
    (built,) = build_engines(open_bundle(folder), "tensorrt", None, lambda *step: None)
    assert built.record.builder == "trtexec 10.3.0"
    assert built.record.goldens == 3
    assert built.record.lowest_centred_cosine > 0.9999
    (variant,) = open_bundle(folder).manifest.variants
    assert built.record.made_for == made_for(variant, tensorrt_facts("10.3.0", "Orin", "8.7"))
    assert sorted(path.name for path in built.folder.iterdir()) == ["engine.json", "engine.plan"]


def test_the_options_that_it_is_given(folder: Path, program: Program) -> None:
    build(folder)
    first, *runs = program.calls()
    options = dict(option.partition("=")[::2] for option in first)
    assert options["--onnx"].endswith("image.fp32.onnx")
    assert {"--stronglyTyped", "--noTF32", "--skipInference"} <= set(options)
    assert options["--minShapes"] == options["--optShapes"] == "pixels:1x64x64x3"
    assert options["--maxShapes"] == "pixels:16x64x64x3"
    assert options["--memPoolSize"] == "workspace:1024"
    assert len(runs) == 4, "the first golden, then all three"
    assert all("--shapes=pixels:1x64x64x3" in run for run in runs)


def test_its_first_error_is_the_reason(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Program(tmp_path, folder / GOLDEN_NAME, fault="--onnx")
    monkeypatch.setenv("PATH", f"{made.folder}:/usr/bin:/bin")
    with pytest.raises(BackendError, match=r"trtexec failed with Error\[4\]: no such kernel: check that `nvidia-smi`"):
        build(folder)


@pytest.mark.parametrize("first", ["nan", '"x"'])
def test_an_answer_that_is_no_number_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    made = Program(tmp_path, folder / GOLDEN_NAME, first=first)
    monkeypatch.setenv("PATH", f"{made.folder}:/usr/bin:/bin")
    with pytest.raises(BackendError, match="gave no numbers for image_embeds"):
        build(folder)


def test_versions_as_the_log_writes_them() -> None:
    log = "[TensorRT v110401] [b12]\n[I] Selected Device: NVIDIA L4\n[I] Compute Capability: 8.9\n"
    assert trtexec._device(log) == ("11.4.1", "NVIDIA L4", "8.9")
    with pytest.raises(BackendError, match="does not name its version and GPU"):
        trtexec._device("[TensorRT v100300]")
