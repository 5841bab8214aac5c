"""The cache of compiled engines: one folder for each, beside the bundle.

    BUNDLE.engines/                            or the folder that CLIPEDGE_ENGINES names
      image.fp16.tensorrt.5f0c…/               GRAPH.BACKEND.KEY
        engine.json                            what it was made for, its files' hashes, how it was proven
        engine.plan                            what the backend reads

An engine fits one graph, library version, GPU and system; the key is a hash of these. It is machine code in all but
name and cannot be checked before it runs. So it is never part of a bundle, which may come from anybody: it is read only
from this folder, which the bundle's user made by ``clipedge build``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from clipedge.backends import BATCH
from clipedge.bundle import sha256_of
from clipedge.errors import BackendError
from clipedge.manifest import Variant

__all__ = [
    "FOLDER_VARIABLE",
    "RECORD_NAME",
    "Record",
    "cached_entry",
    "engine_folder",
    "entry_path",
    "made_for",
    "tensorrt_facts",
]

FOLDER_VARIABLE = "CLIPEDGE_ENGINES"
RECORD_NAME = "engine.json"
MAX_RECORD_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Record:
    """What ``engine.json`` holds: what the engine was made for, SHA-256 of each file, its proof on the goldens."""

    made_for: dict[str, str]
    files: dict[str, str]
    builder: str
    built: str
    goldens: int
    lowest_centred_cosine: float

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def engine_folder(bundle: Path) -> Path:
    """Where a bundle's engines are kept: ``CLIPEDGE_ENGINES`` if that is set (for read-only roots), else beside it."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    bundle = bundle.resolve()
    return bundle.with_name(f"{bundle.name}.engines")


def made_for(variant: Variant, library: Mapping[str, str]) -> dict[str, str]:
    """The facts that an engine depends on: the graph's bytes, ``library`` (versions, GPU), system, batch."""
    graph = hashlib.sha256("".join(entry.sha256 for entry in variant.files).encode())
    system = f"{platform.system()} {platform.machine()}"
    return {"onnx": graph.hexdigest(), **library, "system": system, "batch": f"1 to {BATCH}"}


def tensorrt_facts(version: str, gpu: str, capability: str) -> dict[str, str]:
    """The part of ``made_for`` that TensorRT's engines depend on. Of a version the first three numbers count."""
    return {"tensorrt": ".".join(version.split(".")[:3]), "gpu": gpu, "compute capability": capability}


def entry_path(graph: Path, backend: str, facts: Mapping[str, str]) -> Path:
    """Where the engine of the bundle's file ``graph`` lies (whether or not it exists)."""
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return engine_folder(graph.parent) / f"{graph.stem}.{backend}.{key}"


def cached_entry(graph: Path, backend: str, facts: Mapping[str, str]) -> Path:
    """The folder of the engine made for exactly these facts, its files' hashes checked.

    Raises BackendError, naming ``clipedge build``, if there is none, only ones made for something else, or an altered
    one.
    """
    entry = entry_path(graph, backend, facts)
    command = f"`clipedge build {graph.parent}" + ("`" if backend == "tensorrt" else f" --backend {backend}`")
    if not entry.is_dir():
        found = _others(entry, facts)
        raise BackendError(f"{found or 'no engine was built yet'} for {graph.name} on {backend}: run {command} here")
    record = _read_record(entry)
    whole = record is not None and record.made_for == dict(facts) and record.files
    if record is None or not whole or not all(_is_whole(entry, *file) for file in record.files.items()):
        raise BackendError(f"{entry} is not the engine that was built (its files were altered): run {command} again")
    return entry


def _others(entry: Path, facts: Mapping[str, str]) -> str:
    """What is different about an engine of the same graph and backend that was made for something else; "" if none."""
    prefix = entry.name.rpartition(".")[0]
    for other in sorted(entry.parent.glob(f"{prefix}.*")):
        record = _read_record(other)
        if record is not None:
            made = record.made_for
            differences = [
                f"{fact} {_short(made.get(fact, 'unknown'))}, here {_short(here)}"
                for fact, here in facts.items()
                if made.get(fact) != here
            ]
            return f"the engine was built for {'; '.join(differences)}: there is none"
    return ""


def _short(value: str) -> str:
    return value if len(value) < 64 else f"{value[:12]}…"


def _is_whole(entry: Path, name: str, sha256: str) -> bool:
    path = entry / name
    return Path(name).name == name and path.is_file() and sha256_of(path) == sha256


def _read_record(entry: Path) -> Record | None:
    """The record of an engine's folder; None where there is none that can be read."""
    path = entry / RECORD_NAME
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**document)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    tables = (record.made_for, record.files)
    strings = all(isinstance(table, dict) and all(isinstance(v, str) for v in table.values()) for table in tables)
    return record if strings else None
