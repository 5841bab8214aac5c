"""The cache of engines: only what was built for exactly this machine and not touched since is handed out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clipedge.engines.cache import (
    RECORD_NAME,
    Record,
    cached_entry,
    engine_folder,
    entry_path,
    made_for,
    tensorrt_facts,
)
from clipedge.errors import BackendError
from clipedge.manifest import FileEntry, TensorSpec, Variant

SPECS = (TensorSpec("pixels", "uint8", ("batch", 8, 8, 3)),), (TensorSpec("image_embeds", "float32", ("batch", 4)),)
VARIANT = Variant("image", "fp16", "tensorrt", (FileEntry("image.fp16.tensorrt.onnx", "ab" * 32),), 19, *SPECS)
FACTS = made_for(VARIANT, tensorrt_facts("10.3.0.30", "Orin", "8.7"))


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return tmp_path / "bundle" / "image.fp16.tensorrt.onnx"


def put(graph: Path, facts: dict[str, str] = FACTS, **changes: Any) -> Path:
    """An engine's folder as ``clipedge build`` leaves it."""
    entry = entry_path(graph, "tensorrt", facts)
    entry.mkdir(parents=True)
    (entry / "engine.plan").write_bytes(b"a plan")
    files = {"engine.plan": hashlib.sha256(b"a plan").hexdigest()}
    record = Record(facts, files, "tensorrt 10.3.0", "2026-01-01T00:00:00+00:00", 32, 0.999)
    (entry / RECORD_NAME).write_text(replace(record, **changes).to_json())
    return entry


def test_engines_lie_beside_the_bundle_and_not_in_it(graph: Path, tmp_path: Path) -> None:
    assert engine_folder(graph.parent) == tmp_path / "bundle.engines"
    assert engine_folder(graph.parent / ".." / "bundle") == tmp_path / "bundle.engines"


def test_a_variable_names_another_folder(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPEDGE_ENGINES", str(tmp_path / "data"))
    entry = put(graph)
    assert entry.parent == tmp_path / "data"
    assert cached_entry(graph, "tensorrt", FACTS) == entry


def test_an_engine_that_was_built_here_is_found(graph: Path) -> None:
    entry = put(graph)
    assert cached_entry(graph, "tensorrt", FACTS) == entry
    assert entry.name.startswith("image.fp16.tensorrt.tensorrt.")


def test_a_build_number_makes_no_other_engine() -> None:
    """Python names it, ``trtexec`` does not; plans of one version are one another's."""
    assert tensorrt_facts("10.3.0.30", "Orin", "8.7") == tensorrt_facts("10.3.0", "Orin", "8.7")


@pytest.mark.parametrize(
    ("facts", "difference"),
    [
        (made_for(VARIANT, tensorrt_facts("10.7.0", "Orin", "8.7")), "tensorrt 10.3.0, here 10.7.0"),
        (
            made_for(VARIANT, tensorrt_facts("10.3.0", "NVIDIA L4", "8.9")),
            "gpu Orin, here NVIDIA L4; compute capability",
        ),
        (FACTS | {"system": "Linux riscv64"}, "here Linux riscv64"),
        (FACTS | {"batch": "1 to 99"}, "batch 1 to 16, here 1 to 99"),
        (FACTS | {"onnx": "cd" * 32}, "here cdcdcdcdcdcd…"),
    ],
)
def test_a_stale_engine_says_what_changed_and_names_the_command(
    graph: Path, facts: dict[str, str], difference: str
) -> None:
    put(graph)
    with pytest.raises(BackendError) as error:
        cached_entry(graph, "tensorrt", facts)
    assert difference in str(error.value)
    assert str(error.value).endswith(f"run `clipedge build {graph.parent}` here")


def test_a_missing_engine_names_the_command_of_its_backend(graph: Path) -> None:
    with pytest.raises(
        BackendError, match=r"no engine was built yet for image\.fp16.* on onnxruntime-tensorrt"
    ) as error:
        cached_entry(graph, "onnxruntime-tensorrt", FACTS)
    assert f"`clipedge build {graph.parent} --backend onnxruntime-tensorrt`" in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "engine.plan").write_bytes(b"b plan"),
        lambda entry: (entry / "engine.plan").unlink(),
        lambda entry: (entry / RECORD_NAME).unlink(),
        lambda entry: (entry / RECORD_NAME).write_text("{"),
        lambda entry: (entry / RECORD_NAME).write_text("[" * 100_000),
        lambda entry: (entry / RECORD_NAME).write_bytes(b"\xff" * 100),
        lambda entry: (entry / RECORD_NAME).write_text(" " * 2_000_000),
        lambda entry: edit(entry, files={}),
        lambda entry: edit(entry, files=["engine.plan"]),
        lambda entry: edit(entry, files={"engine.plan": 7}),
        lambda entry: edit(entry, made_for=FACTS | {"gpu": "Thor"}),
        lambda entry: edit(entry, further="field"),
    ],
    ids=[
        "plan", "no plan", "no record", "cut", "deep", "no text", "large", "no files", "list", "number", "other",
        "field",
    ],
)  # fmt: skip
def test_an_altered_engine_is_refused(graph: Path, damage: Any) -> None:
    damage(put(graph))
    with pytest.raises(BackendError, match=r"is not the engine that was built .*: run `clipedge build .*` again"):
        cached_entry(graph, "tensorrt", FACTS)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "sub/engine.plan"])
def test_a_record_that_names_files_elsewhere_is_refused(graph: Path, name: str) -> None:
    entry = put(graph)
    outside = entry.parent / "outside"
    outside.write_bytes(b"a plan")
    edit(entry, files={name: hashlib.sha256(b"a plan").hexdigest()})
    with pytest.raises(BackendError, match="is not the engine that was built"):
        cached_entry(graph, "tensorrt", FACTS)


def edit(entry: Path, **changes: Any) -> None:
    document = json.loads((entry / RECORD_NAME).read_text())
    (entry / RECORD_NAME).write_text(json.dumps(document | changes))
