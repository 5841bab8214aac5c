"""``clipedge build``: the engines of a bundle, each proven on the bundle's golden inputs before it is put in place."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from clipedge.bundle import Bundle, is_running, replacing_folder, sha256_of
from clipedge.engines.cache import FOLDER_VARIABLE, RECORD_NAME, Record, engine_folder, entry_path
from clipedge.engines.compiled import Compiled, Progress
from clipedge.engines.trtexec import find_trtexec
from clipedge.errors import UsageError
from clipedge.manifest import TowerName, Variant
from clipedge.model import choose_variant, variant_name
from clipedge.selftest import GOLDEN_NAME, prove_engine

__all__ = ["COMPILED_BACKENDS", "Built", "build_engines"]

COMPILED_BACKENDS = ("tensorrt", "onnxruntime-tensorrt")
TIMINGS_NAME = "kernel-times.cache"


@dataclass(frozen=True)
class Built:
    """One engine in its place. ``seconds``: what building and proving it took."""

    tower: TowerName
    variant: str
    folder: Path
    record: Record
    seconds: float


class Compiler(Protocol):
    def __call__(self, graph: Path, variant: Variant, work: Path, timings: Path, progress: Progress) -> Compiled:
        """Build an engine of ``graph`` into the folder ``work`` and open it there."""


def build_engines(bundle: Bundle, backend: str, variant: str | None, progress: Progress) -> list[Built]:
    """Build, prove and keep an engine for each tower of a bundle.

    ``variant`` is the one to build, None for the one that ``load`` takes with this backend. Raises UsageError for a
    wrong name or a place that cannot be written, MissingDependencyError and BackendError where the library, the GPU or
    the proof is missing; an engine that was there before stays.
    """
    if backend not in COMPILED_BACKENDS:
        raise UsageError(f"{backend!r} has no engines to build; those that have: {', '.join(COMPILED_BACKENDS)}")
    towers = sorted({variant.tower for variant in bundle.manifest.variants})
    chosen = [choose_variant(bundle, tower, variant, backend) for tower in towers]
    compiler = _compiler(backend)
    return [_build(bundle, one, backend, compiler, progress) for one in chosen]


def _compiler(backend: str) -> Compiler:
    """What builds for a backend: TensorRT's Python package, and ``trtexec`` where only that is installed."""
    if backend == "onnxruntime-tensorrt":
        module = "clipedge.engines.onnxruntime_builder"
    elif find_spec("tensorrt") is None and find_trtexec() is not None:
        module = "clipedge.engines.trtexec"
    else:
        import_module("clipedge.backends.tensorrt")  # which says what is missing
        module = "clipedge.engines.tensorrt_builder"
    compiler: Compiler = import_module(module).compile_engine
    return compiler


def _build(bundle: Bundle, variant: Variant, backend: str, compiler: Compiler, progress: Progress) -> Built:
    start = time.perf_counter()
    graph = bundle.checked_variant(variant)
    goldens = bundle.checked_file(GOLDEN_NAME)
    with _work_folder(engine_folder(bundle.folder)) as work:
        compiled = compiler(graph, variant, work, work.parent / TIMINGS_NAME, progress)
        progress(f"proving {graph.name}", 0, 1)
        cosines = prove_engine(compiled.engine, goldens, variant)
        record = Record(
            compiled.made_for,
            {path.name: sha256_of(path) for path in sorted(work.iterdir())},
            compiled.builder,
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
            len(cosines),
            float(cosines.min()),
        )
        entry = entry_path(graph, backend, compiled.made_for)
        with replacing_folder(entry, (RECORD_NAME,)) as staging:
            for name in record.files:
                (work / name).rename(staging / name)
            (staging / RECORD_NAME).write_text(record.to_json(), encoding="utf-8")
    return Built(variant.tower, variant_name(variant), entry, record, time.perf_counter() - start)


@contextmanager
def _work_folder(engines: Path) -> Iterator[Path]:
    """An empty folder beside the engines, on the same disk, that is gone afterwards; killed builds' are removed."""
    work = engines / f".{os.getpid()}.work"
    for leftover in engines.glob(".*.work"):
        pid = leftover.name.split(".")[1]
        if pid.isdecimal() and not is_running(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise UsageError(
            f"{engines} cannot be written ({error.strerror}): set {FOLDER_VARIABLE} to a folder that can be, here and "
            "where the bundle is loaded"
        ) from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
