"""``clipedge build``: an engine is put in place only after the golden inputs proved it, and whole.

The library that compiles is stood in for by ONNX Runtime on the CPU: embeddings, proof and cache are real.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clipedge.backends import Engine, open_engine
from clipedge.bundle import open_bundle
from clipedge.cli import main
from clipedge.engines import build as building
from clipedge.engines.build import build_engines
from clipedge.engines.cache import RECORD_NAME, cached_entry, engine_folder, made_for
from clipedge.engines.compiled import Compiled, Progress
from clipedge.errors import BackendError, UsageError
from clipedge.manifest import Variant

LIBRARY = {"tensorrt": "10.3.0", "gpu": "Orin", "compute capability": "8.7"}


class Changed:
    """An engine whose embeddings somebody changes."""

    def __init__(self, engine: Engine, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
        self._engine, self._change = engine, change
        self.name, self.device, self.version, self.arithmetic = "changed", "cpu", "1", "float32"

    def __call__(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self._change(self._engine(batch))


def compiler(change: Callable[[Any], Any] = lambda embeds: embeds, content: bytes = b"plan") -> building.Compiler:
    def compile_engine(graph: Path, variant: Variant, work: Path, timings: Path, progress: Progress) -> Compiled:
        (work / "engine.plan").write_bytes(content)
        progress("kernels", 1, 2)
        engine = Changed(open_engine(graph, variant, "onnxruntime"), change)
        return Compiled(engine, made_for(variant, LIBRARY), "tensorrt 10.3.0")

    return compile_engine


@pytest.fixture
def folder(demo_bundle_fp32: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_bundle_fp32, tmp_path / "bundle")


def use(monkeypatch: pytest.MonkeyPatch, one: building.Compiler) -> None:
    monkeypatch.setattr(building, "_compiler", lambda backend: one)


def nothing(*_: object) -> None:
    pass


def test_every_tower_gets_a_proven_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, compiler())
    told: list[tuple[str, int, int]] = []
    bundle = open_bundle(folder)
    built = build_engines(bundle, "tensorrt", None, lambda *step: told.append(step))
    assert [(one.tower, one.variant) for one in built] == [("image", "fp32"), ("text", "fp32")]
    for one in built:
        assert one.record.goldens == 32
        assert one.record.lowest_centred_cosine > 0.9999
        variant = next(variant for variant in bundle.manifest.variants if variant.tower == one.tower)
        graph = bundle.checked_variant(variant)
        assert cached_entry(graph, "tensorrt", made_for(variant, LIBRARY)) == one.folder
        assert sorted(path.name for path in one.folder.iterdir()) == ["engine.json", "engine.plan"]
    assert ("kernels", 1, 2) in told
    assert sorted(path.name for path in engine_folder(folder).iterdir()) == sorted(one.folder.name for one in built)


@pytest.mark.parametrize(
    "change",
    [
        lambda embeds: np.full_like(embeds, np.nan),
        lambda embeds: np.ones_like(embeds),
        lambda embeds: embeds[:, ::-1],
        lambda embeds: embeds + np.random.default_rng(0).normal(0, 0.1, embeds.shape).astype(np.float32),
        lambda embeds: embeds[:, :-1],
    ],
    ids=["nan", "constant", "another order", "noise", "another width"],
)
def test_an_engine_with_wrong_numbers_is_not_put_in_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]
) -> None:
    use(monkeypatch, compiler(change))
    with pytest.raises(BackendError, match="changed 1"):
        build_engines(open_bundle(folder), "tensorrt", None, nothing)
    assert list(engine_folder(folder).iterdir()) == []


def test_numbers_that_are_wrong_after_the_first_golden_are_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``load`` runs one golden input; the build runs them all."""
    calls: list[int] = []

    def forget(embeds: npt.NDArray[Any]) -> npt.NDArray[Any]:
        calls.append(1)
        return embeds if len(calls) <= 2 else np.roll(embeds, 1, axis=1)

    use(monkeypatch, compiler(forget))
    with pytest.raises(BackendError, match=r"on the bundle's 32 goldens \(median\) the centred cosine"):
        build_engines(open_bundle(folder), "tensorrt", None, nothing)


def test_a_failed_build_leaves_the_engine_that_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, compiler(content=b"first"))
    first, *_ = build_engines(open_bundle(folder), "tensorrt", None, nothing)
    use(monkeypatch, compiler(np.zeros_like, content=b"second"))
    with pytest.raises(BackendError):
        build_engines(open_bundle(folder), "tensorrt", None, nothing)
    assert (first.folder / "engine.plan").read_bytes() == b"first"
    use(monkeypatch, compiler(content=b"third"))
    again, *_ = build_engines(open_bundle(folder), "tensorrt", None, nothing)
    assert again.folder == first.folder
    assert (again.folder / "engine.plan").read_bytes() == b"third"


def test_what_a_killed_build_left_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = engine_folder(folder)
    for process in (2**22 + 1, os.getppid()):  # one that cannot be running, one that is
        (engines / f".{process}.work").mkdir(parents=True)
    use(monkeypatch, compiler())
    build_engines(open_bundle(folder), "tensorrt", None, nothing)
    assert [path.name for path in engines.glob(".*")] == [f".{os.getppid()}.work"]


def test_a_place_that_cannot_be_written_names_the_variable(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLIPEDGE_ENGINES", str(tmp_path / "file" / "engines"))
    use(monkeypatch, compiler())
    with pytest.raises(UsageError, match=r"cannot be written .*: set CLIPEDGE_ENGINES to a folder that can be"):
        build_engines(open_bundle(folder), "tensorrt", None, nothing)


def test_files_of_others_are_not_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, compiler())
    first, *_ = build_engines(open_bundle(folder), "tensorrt", None, nothing)
    (first.folder / RECORD_NAME).unlink()
    (first.folder / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="would be lost"):
        build_engines(open_bundle(folder), "tensorrt", None, nothing)
    assert (first.folder / "thesis.tex").read_text() == "years of work"


def test_the_verb_prints_what_it_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, compiler())
    assert main(["build", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "image fp32: built by tensorrt 10.3.0 for Orin in" in out
    assert "lowest centred cosine of 32 goldens 1.00000" in out
    assert err == ""
    assert main(["build", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [engine["tower"] for engine in document["engines"]] == ["image", "text"]
    assert document["engines"][0]["made_for"].items() >= LIBRARY.items()


@pytest.mark.parametrize(
    ("backend", "variant", "message"),
    [
        ("openvino", None, "'openvino' has no engines to build; those that have: tensorrt, onnxruntime-tensorrt"),
        ("tensorrt", "fp16", "has no image tower fp16; there are: fp32; name one of them"),
    ],
)
def test_a_build_that_was_asked_for_wrongly(folder: Path, backend: str, variant: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_engines(open_bundle(folder), backend, variant, nothing)


def test_a_bundle_made_for_processors_alone_is_refused(folder: Path) -> None:
    (folder / "clipedge.json").write_text((folder / "clipedge.json").read_text().replace('"any"', '"x86"'))
    with pytest.raises(UsageError, match=r"no image tower for the backend tensorrt; there are: fp32\.x86; export with"):
        build_engines(open_bundle(folder), "tensorrt", None, nothing)
