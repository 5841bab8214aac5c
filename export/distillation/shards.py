"""A folder of tensors that were dear to compute: written shard by shard, bound to what they were computed from.

``facts.json`` says what that was. A shard is a safetensors file that is there as a whole or not at all, and carries
the hash of the facts; so a process that is killed loses the shard it was at, and no shard of another teacher, data set
or augmentation is ever taken for one of this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clipedge.errors import UsageError
from clipedge.export.training.facts import first_difference
from clipedge.whole import write_whole

__all__ = ["Cache", "Shard", "open_cache"]

Shapes: TypeAlias = Mapping[str, tuple[int | None, ...]]

FACTS_NAME = "facts.json"
FINGERPRINT, NOTES = "clipedge_fingerprint", "clipedge_notes"
MAX_FACTS_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Shard:
    """``notes`` are lines of text that belong to the tensors."""

    tensors: Mapping[str, npt.NDArray[Any]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cache:
    """An open folder; ``fingerprint`` is the hash of its facts, in hex."""

    folder: Path
    fingerprint: str

    def shard(self, name: str, make: Callable[[], Shard], shapes: Shapes) -> Shard:
        """The shard of this name, read, or else made and written.

        ``shapes`` are its tensors' shapes by their names, None for a length that is the shard's own. Raises UsageError
        for a damaged or foreign shard.
        """
        path = self.folder / f"{name}.safetensors"
        if path.is_file():
            shard = self._read(path)
            if not _fits(shard, shapes):
                raise UsageError(f"{path} holds other tensors than expected; delete it, and it is made again")
            return shard
        shard = make()
        metadata = {FINGERPRINT: self.fingerprint, NOTES: json.dumps(shard.notes)}
        write_whole(path, save(dict(shard.tensors), metadata))
        return shard

    def _read(self, path: Path) -> Shard:
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in list(file.keys())}
            notes = json.loads(metadata.get(NOTES, "null"))
        except (SafetensorError, OSError, ValueError) as error:
            raise UsageError(f"{path} is damaged ({error!s:.100}); delete it, and it is made again") from None
        if metadata.get(FINGERPRINT) != self.fingerprint:
            raise UsageError(
                f"{path} belongs to another teacher, data set or augmentation than {self.folder / FACTS_NAME}; "
                "delete it, and it is made again"
            )
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise UsageError(f"{path} is damaged (its notes are no lines); delete it, and it is made again")
        return Shard(tensors, tuple(notes))


def _fits(shard: Shard, shapes: Shapes) -> bool:
    if shard.tensors.keys() != shapes.keys():
        return False
    return all(
        len(shard.tensors[name].shape) == len(shape)
        and all(want in (None, have) for want, have in zip(shape, shard.tensors[name].shape, strict=True))
        for name, shape in shapes.items()
    )


def open_cache(folder: Path, facts: Mapping[str, Any]) -> Cache:
    """Open a folder, or make one. Raises UsageError that names what differs where it was made from other ``facts``."""
    document = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    path = folder / FACTS_NAME
    if path.is_file():
        difference = first_difference(facts, _read_facts(path))
        if difference:
            raise UsageError(
                f"{folder} was made for another run: {difference}; name another folder, or delete that one"
            )
    else:
        write_whole(path, document.encode())
    return Cache(folder, hashlib.sha256(document.encode()).hexdigest())


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FACTS_BYTES:
            raise ValueError("too long")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged ({error!s:.80}); delete its folder, and it is made again") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is damaged (no object); delete its folder, and it is made again")
    return found
