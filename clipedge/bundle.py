"""The artefact on disk: a folder with ``clipedge.json`` in it. Checked when opened, never half written."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipedge.errors import BundleError, UsageError
from clipedge.manifest import FileEntry, Manifest, Variant

__all__ = [
    "MANIFEST_NAME",
    "REPORT_NAME",
    "Bundle",
    "file_entry",
    "is_running",
    "open_bundle",
    "replacing_folder",
    "sha256_of",
]

MANIFEST_NAME = "clipedge.json"
REPORT_NAME = "clipedge-report.json"  # in exports of another layout, which have no manifest
MAX_MANIFEST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder and its manifest. Paths are handed out only after the bytes matched their hash."""

    folder: Path
    manifest: Manifest

    def checked(self, entry: FileEntry) -> Path:
        """The path of one file, once it is inside the folder, there, and unaltered.

        Raises BundleError otherwise, saying which.
        """
        path = self.folder / entry.path
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise BundleError(
                f"{path} is a link that leaves the bundle's folder; only files inside it are read. "
                "Copy the bundle with its files (cp -rL)"
            )
        if not path.is_file():
            raise BundleError(f"{path} is missing: the bundle is incomplete; copy the whole folder again")
        found = sha256_of(path)
        if found != entry.sha256:
            raise BundleError(
                f"{path} is not the file that was exported (expected SHA-256 {entry.sha256[:12]}…, "
                f"found {found[:12]}…): copy or export the bundle again"
            )
        return path

    def checked_variant(self, variant: Variant) -> Path:
        """The path of a variant's graph; its external data files, if any, are checked with it."""
        graph, *_ = [self.checked(entry) for entry in variant.files]
        return graph

    def checked_file(self, name: str) -> Path:
        """The path of one of the manifest's further files, by name."""
        for entry in self.manifest.files:
            if entry.path == name:
                return self.checked(entry)
        raise BundleError(f"{self.folder} has no {name}; it was exported without it: export again")

    def bank_path(self, name: str) -> Path:
        """Where the prompt bank called ``name`` lies (whether or not it exists)."""
        return self.folder / "prompts" / f"{name}.safetensors"

    def bank_names(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "prompts").glob("*.safetensors"))


def open_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Read and check the manifest of a bundle. Raises UsageError for a wrong path, BundleError for a bad manifest."""
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    try:
        if not folder.exists():
            raise UsageError(f"there is no bundle at {folder}: the path does not exist; `clipedge export` makes one")
        if not path.is_file():
            raise UsageError(f"{folder} is not a bundle: it has no {MANIFEST_NAME}; `clipedge export` makes one")
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(
                f"{path} is larger than any manifest ({MAX_MANIFEST_BYTES} bytes): export the bundle again"
            )
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is not UTF-8 text ({error}): export the bundle again") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from None
    return Bundle(folder, Manifest.from_json(text))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def file_entry(folder: Path, name: str) -> FileEntry:
    """The manifest's entry for the file ``name`` in ``folder``."""
    return FileEntry(name, sha256_of(folder / name))


@contextlib.contextmanager
def replacing_folder(
    target: str | os.PathLike[str], marks: tuple[str, ...] = (MANIFEST_NAME, REPORT_NAME)
) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``target`` when the block ends without an error.

    Whatever happens, ``target`` is at every moment the old bundle, the new one, or (if there was none) nothing:
    the new folder is a sibling, flushed to disk and then swapped in with one system call. A process that is
    killed leaves a hidden sibling, which the next export to the same place removes.

    Raises UsageError if ``target`` cannot be written, or holds something that is not a bundle (none of the files
    ``marks``): that is never overwritten.
    """
    target = Path(target).absolute()
    staging = target.parent / f".{target.name}.{os.getpid()}.staging"
    try:
        _check_replaceable(target, marks)
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(target)
        staging.mkdir()
    except OSError as error:
        raise UsageError(f"{target} cannot be written ({error.strerror}); name a folder that can be") from None
    try:
        yield staging
        _flush(staging)
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_replaceable(target: Path, marks: tuple[str, ...]) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target} is not a folder; name a new folder, or an earlier bundle to replace")
    ours = any((target / name).is_file() for name in marks)
    if target.is_dir() and any(target.iterdir()) and not ours:
        raise UsageError(
            f"{target} holds files that are no bundle, and would be lost; name a new folder, or an earlier bundle"
        )


def _clear_leftovers(target: Path) -> None:
    """Remove what killed exports left beside ``target``; put an old bundle back that had only been moved aside."""
    prefix = f".{target.name}."
    for leftover in list(target.parent.iterdir()):
        pid, _, kind = leftover.name[len(prefix) :].partition(".")
        ours = leftover.name.startswith(prefix) and kind in ("staging", "old") and pid.isdecimal()
        if not ours or is_running(int(pid)):
            continue
        if kind == "old" and not target.exists():
            leftover.rename(target)
        else:
            shutil.rmtree(leftover, ignore_errors=True)


def is_running(pid: int) -> bool:
    """Whether another process has this number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def _flush(folder: Path) -> None:
    """Make the new files durable before they replace the old ones: a robot may lose power right afterwards."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
    elif not _exchange(staging, target):
        # No atomic exchange on this system: for a moment nothing is at `target`, and the old bundle lies beside it.
        aside = target.parent / f".{target.name}.{os.getpid()}.old"
        target.rename(aside)
        try:
            staging.rename(target)
        except OSError:
            aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths with Linux's renameat2(RENAME_EXCHANGE). False where that does not exist."""
    at_fdcwd, rename_exchange = -100, 2
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if renameat2 is None:
        return False
    return bool(renameat2(at_fdcwd, os.fsencode(first), at_fdcwd, os.fsencode(second), rename_exchange) == 0)
