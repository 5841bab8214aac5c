"""Hostile bundles and prompt banks: libclipedge refuses what the Python runtime refuses, and says why."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native import BACKEND, BUNDLE, USAGE, Native, NativeError, NativeModel
from safetensors.numpy import load_file, save_file

from clipedge.bundle import sha256_of
from clipedge.errors import BundleError
from clipedge.manifest import Manifest

Document = dict[str, Any]
LARGEST = 2**63 - 1


@pytest.fixture
def folder(demo_bundle_fp32: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_bundle_fp32, tmp_path / "bundle")


def edit(folder: Path, place: str, value: Any) -> str:
    """Replace one value of the manifest, or take it out (``...``); ``place`` is such as ``variants.0.files``."""
    path = folder / "clipedge.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    *parents, last = place.split(".")
    node: Any = document
    for step in parents:
        node = node[int(step)] if isinstance(node, list) else node[step]
    key: Any = int(last) if isinstance(node, list) else last
    if value is ...:
        del node[key]
    else:
        node[key] = value
    text = json.dumps(document)
    path.write_text(text, encoding="utf-8")
    return text


def correct_hashes(folder: Path) -> None:
    path = folder / "clipedge.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    for entry in [*document["files"], *(entry for v in document["variants"] for entry in v["files"])]:
        entry["sha256"] = sha256_of(folder / entry["path"])
    path.write_text(json.dumps(document), encoding="utf-8")


def refused(native: Native, folder: Path, message: str) -> int:
    with pytest.raises(NativeError, match=message) as error:
        native.load(folder)
    return error.value.status


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema_version", 2),
        ("schema_version", True),
        ("schema_version", 1.0),
        ("space_id", None),
        ("embedding_dim", 0),
        ("embedding_dim", 128.0),
        ("embedding_dim", 10**30),
        ("context_length", "77"),
        ("logit_scale", float("nan")),
        ("logit_bias", 10**400),
        ("activation", "relu"),
        ("activation", ["softmax"]),
        ("variants", {}),
        ("variants", []),
        ("variants.0", 7),
        ("variants.0.tower", "audio"),
        ("variants.0.precision", "int4"),
        ("variants.0.files", []),
        ("variants.0.files.0.size", 12),
        ("variants.0.files.0.path", "../image.fp32.onnx"),
        ("variants.0.files.0.path", "/etc/passwd"),
        ("variants.0.files.0.path", "a/../../b"),
        ("variants.0.files.0.path", "C:\\b"),
        ("variants.0.files.0.path", "a\nb"),
        ("variants.0.files.0.path", ""),
        ("variants.0.inputs.0.shape.1", 1.5),
        ("variants.0.inputs.0.shape.1", True),
        ("variants.0.outputs", []),
        ("variants.0.opset", None),
        ("variants.0.proof.samples", "many"),
        ("variants.0.proof.golden_cosine", ...),
        ("preprocessing.mean", [0.5, 0.5]),
        ("preprocessing.std.2", "0.5"),
        ("preprocessing.baked", 1),
        ("preprocessing.height", 10**9),
        ("preprocessing.crop_offset", "up"),
        ("provenance.tools.torch", 2.13),
        ("provenance.created", ...),
        ("files", ...),
        ("surprise", 1),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_edited_manifest_is_refused_by_both(native: Native, folder: Path, place: str, value: Any) -> None:
    text = edit(folder, place, value)
    with pytest.raises(BundleError):
        Manifest.from_json(text)
    assert refused(native, folder, r"clipedge\.json|schema version|number too large") == BUNDLE


@pytest.mark.parametrize(
    "text",
    [
        *["", "null", "[1]", "{", '{"schema_version": 1', "[" * 200_000, '{"a":' * 200_000, '{"a": 1,}', "{'a': 1}"],
        *['{"a": 01}', '{"a": .5}', '{"a": 1.}', '{"a": +1}', '{"a": tru}', '{"a": "\t"}', '{"a": "\\x"}', "{} {}"],
        *['{"a": "\\ud800"}', '{"a": "\\u12"}', '{"a": 1e999}', '{"a": 1, "a": 2}', '{"a": 1} x', '{"a" 1}', "\x00"],
    ],
    ids=lambda text: repr(text[:24]),
)
def test_what_is_no_json_is_refused(native: Native, folder: Path, text: str) -> None:
    (folder / "clipedge.json").write_text(text, encoding="utf-8")
    assert refused(native, folder, "is not JSON|schema version") == BUNDLE


def test_what_is_no_utf8_or_too_large_is_refused(native: Native, folder: Path) -> None:
    path = folder / "clipedge.json"
    path.write_bytes(b'{"schema_version": "\xff"}')
    assert refused(native, folder, "no UTF-8") == BUNDLE
    path.write_bytes(b" " * (4 * 1024 * 1024 + 1))
    assert refused(native, folder, r"expected 4194304 at most") == BUNDLE


def test_a_missing_an_altered_and_a_strange_file_are_refused(native: Native, folder: Path, tmp_path: Path) -> None:
    graph = next(folder.glob("image*.onnx"))
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + b"\x00")
    assert refused(native, folder, "is not the file that was exported") == BUNDLE
    graph.unlink()
    assert refused(native, folder, "is missing") == BUNDLE
    (tmp_path / "outside.onnx").write_bytes(whole)
    graph.symlink_to(tmp_path / "outside.onnx")
    assert refused(native, folder, "leaves the bundle's folder") == BUNDLE
    assert refused(native, tmp_path, "is not a bundle") == USAGE
    assert refused(native, tmp_path / "nothing", "there is no bundle") == USAGE


def test_an_engine_with_other_numbers_is_refused(
    native: Native, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = folder / "golden.safetensors"
    tensors = load_file(path)
    tensors["image_embeds"] = np.roll(tensors["image_embeds"], 1, axis=0)
    save_file(tensors, path)
    correct_hashes(folder)
    assert refused(native, folder, "gives wrong numbers") == BACKEND
    tensors["image_embeds"][:] = np.nan
    save_file(tensors, path)
    correct_hashes(folder)
    assert refused(native, folder, "gives wrong numbers") == BACKEND
    graph = next(folder.glob("image*.onnx"))
    graph.write_bytes(b"no graph")
    correct_hashes(folder)
    assert refused(native, folder, r"ONNX Runtime .* refuses") == BACKEND
    assert capfd.readouterr() == ("", "")  # ONNX Runtime logs such things where it is let


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("pixels"),
        lambda tensors: tensors.update(image_embeds=tensors["image_embeds"].astype(np.float16)),
        lambda tensors: tensors.update(image_embeds=tensors["image_embeds"][:, :7].copy()),
        lambda tensors: tensors.update(pixels=tensors["pixels"][:, :7].copy()),
        lambda tensors: tensors.update(pixels=tensors["pixels"][:0].copy(), image_embeds=np.zeros((0, 128), "f4")),
        lambda tensors: tensors.update(image_embeds=tensors["image_embeds"][0].copy()),
    ],
    ids=range(6),
)
def test_goldens_that_do_not_fit_are_refused(
    native: Native, folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    tensors = load_file(folder / "golden.safetensors")
    change(tensors)
    save_file(tensors, folder / "golden.safetensors")
    correct_hashes(folder)
    assert refused(native, folder, r"golden\.safetensors") == BUNDLE


def packed(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: list[Any], dtype: str = "F32") -> Document:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        packed({}, length=LARGEST),
        packed({}, length=2**64 - 1),
        packed(b"[]"),
        packed(b"{"),
        packed({"a": entry(0, 8, [2])}, bytes(7)),
        packed({"a": entry(0, 8, [2])}, bytes(9)),
        packed({"a": entry(4, 12, [2])}, bytes(12)),
        packed({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
        packed({"a": entry(0, 8, [3])}, bytes(8)),
        packed({"a": entry(0, 8, [2**33, 2**33, 2**33])}, bytes(8)),
        packed({"a": entry(0, 0, [2**40, 2**24, 2**24])}),
        packed({"a": entry(8, 0, [2])}, bytes(8)),
        packed({"a": entry(0, 8, [-2])}, bytes(8)),
        packed({"a": entry(0, 8, [2.0])}, bytes(8)),
        packed({"a": entry(0, 8, [2], "F33")}, bytes(8)),
        packed({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
        packed({"a": {**entry(0, 8, [2]), "more": 1}}, bytes(8)),
        packed({"__metadata__": {"a": 1}}),
        packed(
            b'{"a":' + json.dumps(entry(0, 0, [0])).encode() + b',"a":' + json.dumps(entry(0, 0, [0])).encode() + b"}"
        ),
        packed({"label_embeds": entry(0, 512, [1, 128])}, bytes(512)),
    ],
    ids=range(22),
)
def test_a_hostile_safetensors_file_is_refused(native_fp32: NativeModel, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bank.safetensors"
    path.write_bytes(content)
    with pytest.raises(NativeError, match=r"bank\.safetensors") as error:
        native_fp32.bank_at(path)
    assert error.value.status == BUNDLE


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"version": 2},
        {"labels": []},
        {"labels": ["a", "a"]},
        {"labels": ["a", " "]},
        {"labels": ["a"]},
        {"labels": "ab"},
        {"negatives": ["c"]},
        {"logit_scale": None},
        {"logit_scale": 10**400},
        {"activation": "relu"},
        {"space_id": 7},
        {"decision": {}},
        {"decision": {"temperature": 0, "thresholds": [], "multi_label": False, "variant": "fp32"}},
        {"decision": {"temperature": 1, "thresholds": [0.5], "multi_label": False, "variant": "fp32"}},
        {"decision": {"temperature": 1, "thresholds": [0.5, 1.5], "multi_label": False, "variant": "fp32"}},
        {"decision": {"temperature": 1, "thresholds": [], "multi_label": 0, "variant": "fp32"}},
        {"decision": {"temperature": 1, "thresholds": [], "multi_label": False, "variant": "fp32", "floor": 1e7}},
    ],
    ids=lambda changes: json.dumps(changes)[:50],
)
def test_a_bank_that_lies_is_refused(native_fp32: NativeModel, tmp_path: Path, changes: Document) -> None:
    header: Document = {"format": "clipedge-prompt-bank", "version": 1, "labels": ["a", "b"], "templates": ["{}"]}
    header |= {"logit_scale": 30.0, "logit_bias": 0.0, "activation": "softmax"}
    header["space_id"] = (native_fp32.info().space_id or b"").decode()
    path = tmp_path / "bank.safetensors"
    save_file({"label_embeds": np.eye(2, 128, dtype=np.float32)}, path, {"clipedge": json.dumps(header)})
    assert native_fp32.bank_at(path).labels() == ("a", "b")
    save_file({"label_embeds": np.eye(2, 128, dtype=np.float32)}, path, {"clipedge": json.dumps(header | changes)})
    with pytest.raises(NativeError, match=r"bank\.safetensors") as error:
        native_fp32.bank_at(path)
    assert error.value.status == BUNDLE


def test_a_bank_of_rows_that_are_not_unit_vectors_is_refused(native_fp32: NativeModel, tmp_path: Path) -> None:
    header = {"format": "clipedge-prompt-bank", "version": 1, "labels": ["a"], "templates": []}
    path = tmp_path / "bank.safetensors"
    for value in (np.nan, 0.1, np.inf):
        save_file({"label_embeds": np.full((1, 128), value, np.float32)}, path, {"clipedge": json.dumps(header)})
        with pytest.raises(NativeError, match="of length 1"):
            native_fp32.bank_at(path)
