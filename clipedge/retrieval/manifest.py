"""What an index says about itself: ``index.json``, replaced in one step, and the lock of its one writer."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from clipedge.errors import BundleError, IndexBusyError, UsageError
from clipedge.retrieval.segments import Segments, sync_folder

__all__ = ["INDEX_MANIFEST", "IndexManifest", "lock_folder", "prepare_folder", "read_index_manifest"]

INDEX_MANIFEST = "index.json"
LOCK_NAME = "lock"
FORMAT_VERSION = 3
# The fields of older versions. Their graphs are not read any more: without lists, all rows are searched exactly.
OLDER = {
    1: {"space_id", "dim", "segment_rows", "generation", "bundle", "graph_rows", "graph_bytes"},
    2: {"space_id", "dim", "segment_rows", "generation", "bundle", "graph_rows", "graph_bytes", "table_end"},
}
MAX_BYTES = 64 * 1024
RANGES = {
    "dim": (1, 65536),
    "segment_rows": (1, 1 << 32),
    "generation": (1, 1 << 62),
    "listed_rows": (0, 1 << 48),
    "table_end": (0, 1 << 62),
}


@dataclass(frozen=True)
class IndexManifest:
    """``space_id`` and ``dim`` of every vector; ``generation`` and ``segment_rows`` say which files hold them.

    ``listed_rows`` is how many rows, dead ones counted, the lists cover, 0 for no lists.
    ``table_end`` is the byte of the log up to which a table has its entries, 0 for no table.
    ``bundle`` is where the bundle lay that encoded them: a hint, since it may have moved. The truth is ``space_id``.
    """

    space_id: str
    dim: int
    segment_rows: int
    generation: int
    bundle: str | None
    listed_rows: int = 0
    table_end: int = 0

    def log_path(self, folder: Path) -> Path:
        return folder / f"entries-{self.generation}.log"

    def table_path(self, folder: Path) -> Path:
        return folder / f"entries-{self.generation}-{self.table_end}.table"

    def segments(self, folder: Path) -> Segments:
        return Segments(folder, self.generation, self.segment_rows, self.dim)

    def lists_path(self, folder: Path) -> Path:
        return folder / f"lists-{self.generation}-{self.listed_rows}.ivf"

    def clear_leftovers(self, folder: Path) -> None:
        """Remove what was replaced, and what a killed writer did not complete."""
        for pattern in ("entries-*.log", "vectors-*.f16"):
            for path in folder.glob(pattern):
                if path.stem.split("-")[1] != str(self.generation):
                    path.unlink()
        derived = {self.lists_path(folder), self.table_path(folder)}
        for pattern in ("lists-*.ivf", "graph-*.usearch", "entries-*.table", ".lists-*", ".entries-*"):
            for path in set(folder.glob(pattern)) - derived:
                path.unlink()

    def save(self, folder: Path) -> None:
        """Replace the manifest in one step; the new one is on the disk when this returns."""
        staging = folder / f".{INDEX_MANIFEST}.staging"
        document = {"format": "clipedge-index", "version": FORMAT_VERSION, **asdict(self)}
        with staging.open("w", encoding="ascii") as file:
            json.dump(document, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(folder / INDEX_MANIFEST)
        sync_folder(folder)


def read_index_manifest(folder: str | os.PathLike[str]) -> IndexManifest:
    """Raises UsageError if there is no index at ``folder``, BundleError if its manifest is damaged or of the future."""
    path = Path(folder) / INDEX_MANIFEST
    try:
        if not path.is_file():
            raise UsageError(
                f"there is no index at {os.fspath(folder)}: it has no {INDEX_MANIFEST}; `clipedge index` makes one"
            )
        if path.stat().st_size > MAX_BYTES:
            raise BundleError(f"{path} is larger than any manifest of an index ({MAX_BYTES} bytes): build it again")
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from None
    try:
        return _checked(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise BundleError(f"{path} is damaged ({error}): restore the index from a copy or build it again") from None


def _checked(document: object) -> IndexManifest:
    if not isinstance(document, dict) or document.pop("format", None) != "clipedge-index":
        raise ValueError("it is no index of clipedge")
    version = document.pop("version", None)
    names = {field.name for field in fields(IndexManifest)}
    expected = {FORMAT_VERSION: names, **OLDER}.get(version) if type(version) is int else None
    if expected is None:
        raise ValueError(f"it has version {version!r:.20}, this clipedge reads 1 to {FORMAT_VERSION}")
    if set(document) != expected:
        raise ValueError(f"expected the fields {', '.join(sorted(expected))}, found {', '.join(sorted(document)):.80}")
    document = {name: value for name, value in document.items() if name in names}
    for name, (least, largest) in RANGES.items():
        if name in document and not (type(document[name]) is int and least <= document[name] <= largest):
            raise ValueError(f"{name}: expected a whole number from {least} to {largest}, found {document[name]!r:.40}")
    if not isinstance(document["space_id"], str) or not isinstance(document["bundle"], (str, type(None))):
        raise ValueError("space_id and bundle: expected texts")
    return IndexManifest(**document)


def prepare_folder(folder: Path, manifest: IndexManifest) -> int:
    """Make ``folder`` an empty index; returns the descriptor of ``lock_folder``.

    Raises UsageError if it is there already and not empty, or cannot be written; IndexBusyError if another process
    makes one there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({error.strerror}); name a folder that can be") from None
    try:
        # A process killed in here leaves these and no manifest.
        log = manifest.log_path(folder)
        others = sorted({path.name for path in folder.iterdir()} - {LOCK_NAME, log.name, f".{INDEX_MANIFEST}.staging"})
        if others:
            raise UsageError(
                f"{folder} is not empty (it holds {others[0]}); name a new folder, or open the index there"
            )
        log.write_bytes(b"")
        manifest.save(folder)
    except BaseException:
        os.close(lock)
        raise
    return lock


def lock_folder(folder: Path) -> int:
    """Become the one writer of an index. Returns a descriptor: to close it, or to be killed, lets go.

    Raises IndexBusyError while another process (or another Index in this one) writes, UsageError where locks do not
    exist or the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        raise UsageError("an index is written on POSIX systems only; elsewhere open it without writable=True") from None
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({error.strerror}); check its permissions") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise IndexBusyError(f"{folder} is being written by another process: wait for it, or end it") from None
    except OSError as error:
        os.close(descriptor)
        raise UsageError(f"{folder} cannot be locked ({error.strerror}); put the index on a local disk") from None
    return descriptor
