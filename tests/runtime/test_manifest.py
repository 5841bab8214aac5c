"""The manifest: what was written is read back, and what was damaged or edited is refused with its place named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clipedge.errors import BundleError
from clipedge.manifest import (
    SCHEMA_VERSION,
    FileEntry,
    Manifest,
    Preprocessing,
    Provenance,
    TensorSpec,
    Variant,
    VariantProof,
)

HASH = "0" * 64
MANIFEST = Manifest(
    schema_version=SCHEMA_VERSION,
    space_id="a" * 64,
    variants=(
        Variant(
            tower="image",
            precision="int8",
            target="x86",
            files=(FileEntry("image.int8.x86.onnx", HASH), FileEntry("data/weights.bin", HASH)),
            opset=19,
            inputs=(TensorSpec("pixels", "uint8", ("batch", 64, 64, 3)),),
            outputs=(TensorSpec("image_embeds", "float32", ("batch", 128)),),
            proof=VariantProof("onnxruntime 1.31.1", 2000, 0.999, 0.998, 0.997, 0.9991),
        ),
    ),
    embedding_dim=128,
    logit_scale=34.2,
    logit_bias=-16.0,
    activation="sigmoid",
    preprocessing=Preprocessing(64, 64, "shortest-edge", 64, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    context_length=None,
    files=(FileEntry("golden.safetensors", HASH),),
    provenance=Provenance("Modell Größe 图", None, HASH, None, "2026-01-01T00:00:00+00:00", {"torch": "2.13.0"}),
)


def document() -> dict[str, Any]:
    """The manifest as plain JSON values, to be edited."""
    document: dict[str, Any] = json.loads(MANIFEST.to_json())
    return document


def edited(place: str, value: Any) -> str:
    """The manifest's text with one value replaced; ``place`` is such as ``variants.0.files``."""
    whole = document()
    *parents, last = place.split(".")
    node: Any = whole
    for step in parents:
        node = node[int(step)] if isinstance(node, list) else node[step]
    node[int(last) if isinstance(node, list) else last] = value
    return json.dumps(whole)


def test_what_was_written_is_read_back() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_the_demonstration_bundle_is_read_back(demo_bundle: Path) -> None:
    text = (demo_bundle / "clipedge.json").read_text(encoding="utf-8")
    assert Manifest.from_json(text).to_json() == text


def test_an_integer_stands_for_a_float_but_not_the_other_way() -> None:
    assert Manifest.from_json(edited("logit_scale", 34)).logit_scale == 34.0
    with pytest.raises(BundleError, match=r"embedding_dim: expected int, found 128\.0"):
        Manifest.from_json(edited("embedding_dim", 128.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"schema_version": 1', "not JSON"),
        ("[1, 2]", "no JSON object"),
        ("null", "no JSON object"),
        ("[" * 200_000, "not JSON"),
        ('{"a":' * 200_000, "not JSON"),
        ("{}", "schema version None, this clipedge reads version 1"),
        ('{"schema_version": 2}', "schema version 2, this clipedge reads version 1"),
        ('{"schema_version": "1"}', "schema version '1'"),
        ('{"schema_version": 1}', "missing field"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_document_that_is_no_manifest_is_refused(text: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(text)


@pytest.mark.parametrize("field", sorted(set(document()) - {"schema_version"}))
def test_every_field_is_required(field: str) -> None:
    without = document()
    del without[field]
    with pytest.raises(BundleError, match=f"missing field {field}"):
        Manifest.from_json(json.dumps(without))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("schema_version", True, "schema_version: expected int, found true"),
        ("space_id", None, "space_id: expected str, found null"),
        ("embedding_dim", 0, "embedding_dim"),
        ("embedding_dim", -4, "embedding_dim"),
        ("context_length", 0, "context_length"),
        ("context_length", "77", "context_length: expected int"),
        ("logit_scale", float("nan"), "logit_scale: expected a finite number, found NaN"),
        ("logit_scale", float("inf"), "logit_scale: expected a finite number, found Infinity"),
        ("logit_bias", 10**400, "logit_bias: expected a finite number"),
        ("activation", "relu", "activation: expected 'softmax' or 'sigmoid', found \"relu\""),
        ("activation", ["softmax"], "activation: expected"),
        ("variants", {}, "variants: expected a list"),
        ("variants.0", 7, r"variants\[0\]: expected an object"),
        ("variants.0.tower", "audio", r"variants\[0\]\.tower: expected 'image' or 'text'"),
        ("variants.0.precision", "int4", r"variants\[0\]\.precision"),
        ("variants.0.files", [], r"variants\[0\]\.files"),
        ("variants.0.inputs", [], r"variants\[0\]\.inputs"),
        ("variants.0.outputs", [], r"variants\[0\]\.outputs"),
        ("variants.0.files.0.size", 12, r"unknown field variants\[0\]\.files\[0\]\.size"),
        ("variants.0.inputs.0.shape.1", 1.5, r"variants\[0\]\.inputs\[0\]\.shape\[1\]: expected int or str, found 1.5"),
        ("variants.0.inputs.0.shape.1", True, r"shape\[1\]: expected int or str, found true"),
        ("variants.0.proof.samples", "many", r"variants\[0\]\.proof\.samples: expected int"),
        ("preprocessing.mean", [0.5, 0.5], r"preprocessing\.mean: expected a list of 3"),
        ("preprocessing.std.2", "0.5", r"preprocessing\.std\[2\]: expected float"),
        ("preprocessing.baked", 1, r"preprocessing\.baked: expected bool"),
        ("preprocessing.height", 0, r"preprocessing\.height"),
        ("preprocessing.width", -64, r"preprocessing\.width"),
        ("preprocessing.shortest_edge", 0, r"preprocessing\.shortest_edge"),
        ("preprocessing.height", 10**9, r"preprocessing\.height"),
        ("provenance.tools.torch", 2.13, r"provenance\.tools\.torch: expected str"),
        ("surprise", 1, "unknown field surprise"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_edited_field_is_refused_and_named(place: str, value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message) as error:
        Manifest.from_json(edited(place, value))
    assert "export" in str(error.value), "the message says what to do"


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../other/model.onnx", "a/../../b", "..", "", "C:/model.onnx", "a\\..\\b", "a\0b", "a\ud800b"],
    ids=ascii,
)
def test_a_path_that_leaves_the_folder_or_is_none_is_refused(path: str) -> None:
    with pytest.raises(BundleError, match="inside"):
        Manifest.from_json(edited("files.0.path", path))
