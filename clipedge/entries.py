"""Which row of an index belongs to which key: the state that its batches add up to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from clipedge.entrylog import Batch, Metadata
from clipedge.errors import UsageError

__all__ = ["Entries", "check_entries"]


class Entries:
    """Keys with their rows and metadata. A row is dead once its key is removed or has moved to a newer row."""

    def __init__(self) -> None:
        self._keys: list[str] = []  # of every row, dead ones too
        self._metadata: list[Metadata] = []
        self._live = bytearray()
        self._rows: dict[str, int] = {}

    def apply(self, batch: Batch) -> None:
        for key in (*batch.removed, *batch.keys):
            row = self._rows.pop(key, None)
            if row is not None:
                self._live[row] = False
                self._metadata[row] = {}
        self._rows.update(zip(batch.keys, range(len(self._keys), len(self._keys) + len(batch.keys)), strict=True))
        self._keys += batch.keys
        self._metadata += map(dict, batch.metadata)
        self._live += b"\1" * len(batch.keys)

    @property
    def rows(self) -> int:
        """Rows written, dead ones too."""
        return len(self._keys)

    @property
    def dead(self) -> int:
        return len(self._keys) - len(self._rows)

    def live(self) -> npt.NDArray[np.bool_]:
        """(rows,) bool."""
        return np.frombuffer(bytes(self._live), np.bool_)

    def key(self, row: int) -> str:
        return self._keys[row]

    def metadata(self, row: int) -> Metadata:
        return dict(self._metadata[row])  # so that a caller's changes stay the caller's

    def row(self, key: str) -> int | None:
        return self._rows.get(key)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        """Live keys, in the order of their rows."""
        return iter(self._rows)


def check_entries(keys: Sequence[str], metadata: Sequence[Metadata]) -> None:
    """Raise UsageError unless ``keys`` are distinct, non-empty texts and ``metadata`` has a dict for each."""
    for key in keys:
        if not isinstance(key, str) or not key:
            raise UsageError(f"a key has to be a text that is not empty, found {key!r:.60}")
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UsageError(f"the key {twice!r} is given twice in one call")
    if len(metadata) != len(keys) or not all(isinstance(item, dict) for item in metadata):
        raise UsageError(f"expected metadata as one dict for each of the {len(keys)} keys, found {metadata!r:.60}")
