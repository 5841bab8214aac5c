"""Hostile bundles, each made here: loading one raises a BundleError, BackendError or UsageError, and nothing else.

Whoever can write a bundle can also correct its hashes, so most attacks below have a manifest that agrees with its
files. What they must not reach: a file outside of the folder, an exception that is not ours, a hang, a wrong answer.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest
from safetensors.numpy import load_file, save_file

import clipedge
from clipedge.bundle import MANIFEST_NAME, sha256_of

PICTURE = np.zeros((8, 8, 3), np.uint8)
Document = dict[str, Any]


def use(folder: Path) -> None:
    """All that a device does with a bundle."""
    clip = clipedge.load(folder)
    clip.encode_image([PICTURE, PICTURE])
    clip.classifier(clip.saved_bank("default")).predict(PICTURE)
    clip.classifier(["cat"]).predict_proba(PICTURE)


@pytest.fixture
def folder(demo_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_bundle, tmp_path / "bundle")


def edit(folder: Path, change: Callable[[Document], object]) -> None:
    path = folder / MANIFEST_NAME
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def correct_hashes(folder: Path) -> None:
    def correct(document: Document) -> None:
        for entry in [*document["files"], *(entry for v in document["variants"] for entry in v["files"])]:
            entry["sha256"] = sha256_of(folder / entry["path"])

    edit(folder, correct)


def image_variant(document: Document) -> Document:
    return next(variant for variant in document["variants"] if variant["tower"] == "image")


def graph_path(folder: Path) -> Path:
    return next(folder.glob("image.*.onnx"))


# ---- paths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["graph", "golden"])
@pytest.mark.parametrize("style", ["absolute", "dots", "inner dots", "symlink", "linked folder"])
def test_a_true_file_outside_of_the_folder_is_not_read(folder: Path, where: str, style: str) -> None:
    """The file outside is the right one, with the right hash: only its place is wrong."""
    inside = graph_path(folder) if where == "graph" else folder / "golden.safetensors"
    outside = folder.parent / "outside" / inside.name
    outside.parent.mkdir()
    inside.rename(outside)
    name = {
        "absolute": str(outside),
        "dots": f"../outside/{inside.name}",
        "inner dots": f"prompts/../../outside/{inside.name}",
        "symlink": inside.name,
        "linked folder": f"prompts/deep/{inside.name}",
    }[style]
    if style == "symlink":
        inside.symlink_to(outside)
    if style == "linked folder":
        (folder / "prompts" / "deep").symlink_to(outside.parent)

    def rename(document: Document) -> None:
        entries = image_variant(document)["files"] if where == "graph" else document["files"]
        next(entry for entry in entries if entry["path"] == inside.name)["path"] = name

    edit(folder, rename)
    with pytest.raises(clipedge.BundleError, match=r"leaves the bundle's folder|has no golden"):
        use(folder)


def test_a_named_pipe_does_not_hang_the_load(folder: Path) -> None:
    graph = graph_path(folder)
    graph.unlink()
    os.mkfifo(graph)
    with pytest.raises(clipedge.BundleError, match="is missing"):
        use(folder)


# ---- a manifest that lies, with right hashes -------------------------------------------------------------------


LIES: dict[str, Callable[[Document], object]] = {
    "newer schema": lambda d: d.update(schema_version=999),
    "no variants": lambda d: d.update(variants=[]),
    "no image tower": lambda d: d.update(variants=[v for v in d["variants"] if v["tower"] == "text"]),
    "no golden": lambda d: d.update(files=[e for e in d["files"] if e["path"] != "golden.safetensors"]),
    "no tokenizer": lambda d: d.update(files=[e for e in d["files"] if e["path"] != "tokenizer.json"]),
    "embedding size": lambda d: d.update(embedding_dim=64),
    "context length": lambda d: d.update(context_length=8),
    "no context length": lambda d: d.update(context_length=None),
    "other space": lambda d: d.update(space_id="0" * 64),
    "picture size": lambda d: d["preprocessing"].update(height=32, width=32),
    "huge picture": lambda d: d["preprocessing"].update(height=10**9),
    "no inputs": lambda d: image_variant(d).update(inputs=[]),
    "no outputs": lambda d: image_variant(d).update(outputs=[]),
    "no files": lambda d: image_variant(d).update(files=[]),
    "no proof": lambda d: image_variant(d).update(proof=None),
    "NaN proof": lambda d: image_variant(d)["proof"].update(golden_cosine=float("nan")),
    "input name": lambda d: image_variant(d)["inputs"][0].update(name="other"),
    "input dtype": lambda d: image_variant(d)["inputs"][0].update(dtype="float32"),
    "unknown dtype": lambda d: image_variant(d)["inputs"][0].update(dtype="object"),
    "input shape": lambda d: image_variant(d)["inputs"][0].update(shape=[1]),
    "output name": lambda d: image_variant(d)["outputs"][0].update(name="other"),
    "other hash": lambda d: image_variant(d).update(files=[{**image_variant(d)["files"][0], "sha256": "0" * 64}]),
    "file more": lambda d: image_variant(d)["files"].append({"path": "weights.bin", "sha256": "0" * 64}),
    "golden as graph": lambda d: image_variant(d)["files"].insert(0, d["files"][0]),
    "text as image": lambda d: image_variant(d).update(
        files=next(v for v in d["variants"] if v["tower"] == "text")["files"]
    ),
}


@pytest.mark.parametrize("change", LIES.values(), ids=LIES.keys())
def test_a_manifest_that_lies_is_refused(folder: Path, change: Callable[[Document], object]) -> None:
    edit(folder, change)
    with pytest.raises((clipedge.BundleError, clipedge.BackendError, clipedge.UsageError)) as error:
        use(folder)
    assert len(str(error.value)) > 30


# ---- files that lie, with right hashes -------------------------------------------------------------------------


def other_graph(path: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> None:
    """A valid graph from the tower's input to (batch, 128) that is not the tower."""
    pixels = onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ["batch", 64, 64, 3])
    embeds = onnx.helper.make_tensor_value_info("image_embeds", onnx.TensorProto.FLOAT, ["batch", 128])
    graph = onnx.helper.make_graph(nodes, "other", [pixels], [embeds], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=10)
    path.write_bytes(model.SerializeToString())


def first_values(divisor: float) -> Callable[[Path], None]:
    """An "embedding" of the first 128 pixel values, divided; by zero it is NaN and infinity."""
    make = onnx.helper.make_node
    nodes = [
        make("Flatten", ["pixels"], ["flat"]),
        make("Slice", ["flat", "zero", "width", "one"], ["slice"]),
        make("Cast", ["slice"], ["numbers"], to=onnx.TensorProto.FLOAT),
        make("Div", ["numbers", "divisor"], ["image_embeds"]),
    ]
    integers = {"zero": 0, "width": 128, "one": 1}
    constants = [onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [1], [n]) for name, n in integers.items()]
    constants.append(onnx.helper.make_tensor("divisor", onnx.TensorProto.FLOAT, [], [divisor]))
    return lambda path: other_graph(path, nodes, constants)


def external_data(path: Path) -> None:
    """Weights that the graph says lie in a file outside of the bundle."""
    (path.parent.parent / "secret.bin").write_bytes(bytes(4 * 128))
    tensor = onnx.TensorProto(name="weights", data_type=onnx.TensorProto.FLOAT, dims=[1, 128])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    other_graph(path, [onnx.helper.make_node("Identity", ["weights"], ["image_embeds"])], [tensor])


@pytest.mark.parametrize(
    "attack",
    [
        first_values(1.0),
        first_values(0.0),
        external_data,
        lambda path: other_graph(path, [onnx.helper.make_node("NoSuchOperator", ["pixels"], ["image_embeds"])], []),
        lambda path: shutil.copyfile(next(path.parent.glob("text.*.onnx")), path),
        lambda path: path.write_bytes(b"\x08\x0a" + b"\x3a" + b"\xff" * 9),
        lambda path: os.truncate(path, path.stat().st_size - 1000),
    ],
    ids=["pixels", "NaN", "external data", "unknown operator", "text tower", "bad length", "truncated"],
)
def test_a_graph_that_is_not_the_tower_is_refused(folder: Path, attack: Callable[[Path], object]) -> None:
    attack(graph_path(folder))
    correct_hashes(folder)
    with pytest.raises(clipedge.BackendError) as error:
        use(folder)
    assert "\n" not in str(error.value)


def rewrite_golden(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return rewrite


@pytest.mark.parametrize(
    "attack",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
        lambda path: os.truncate(path, 1000),
        rewrite_golden(lambda tensors: tensors.clear()),
        rewrite_golden(lambda tensors: tensors.update(image_embeds=tensors["image_embeds"] * np.nan)),
        rewrite_golden(lambda tensors: tensors.update(image_embeds=tensors["image_embeds"][:, :5].copy())),
        rewrite_golden(lambda tensors: tensors.update(image_embeds=tensors["image_embeds"][::-1].copy())),
        rewrite_golden(lambda tensors: tensors.update(pixels=tensors["pixels"].astype(np.float32))),
        rewrite_golden(lambda tensors: tensors.update(pixels=tensors["pixels"][:, :32].copy())),
    ],
    ids=["empty", "huge", "cut", "no tensors", "NaN", "narrow", "shuffled", "float pixels", "small pixels"],
)
def test_goldens_that_lie_are_refused(folder: Path, attack: Callable[[Path], object]) -> None:
    attack(folder / "golden.safetensors")
    correct_hashes(folder)
    with pytest.raises((clipedge.BundleError, clipedge.BackendError)):
        use(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"version": "1.0", "model": null}'], ids=range(5)
)
def test_a_tokenizer_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    correct_hashes(folder)
    with pytest.raises(clipedge.BundleError, match=r"tokenizer\.json"):
        use(folder)
