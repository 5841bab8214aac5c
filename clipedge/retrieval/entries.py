"""Which row of an index belongs to which key: a table's entries, and the state that newer batches add up to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError
from clipedge.retrieval.entrylog import Batch, Metadata
from clipedge.retrieval.entrytable import EntryTable

__all__ = ["Entries", "check_entries"]


class Entries:
    """Keys with their rows and metadata. A row is dead once its key is removed or has moved to a newer row.

    Rows of the table stay in its file; only those of newer batches are held in memory.
    """

    def __init__(self, table: EntryTable | None = None) -> None:
        self._table = table
        self._live = bytearray() if table is None else bytearray(table.live)
        self._mask: npt.NDArray[np.bool_] | None = None
        self._in_table = len(self._live)  # rows
        self._count = self._live.count(1)
        self._newer: list[tuple[str, Metadata]] = []  # of every row after the table's, dead ones too
        self._rows: dict[str, int] = {}  # of the live ones among them

    def apply(self, batch: Batch) -> None:
        first = self.rows
        for key in (*batch.removed, *batch.keys):
            row = self.row(key)
            if row is not None:
                self._live[row] = False
                self._count -= 1
                if self._rows.pop(key, None) is not None:
                    self._newer[row - self._in_table] = (key, {})
        self._rows.update(zip(batch.keys, range(first, first + len(batch.keys)), strict=True))
        self._newer += zip(batch.keys, map(dict, batch.metadata), strict=True)
        self._live += b"\1" * len(batch.keys)
        self._count += len(batch.keys)
        self._mask = None

    @property
    def rows(self) -> int:
        """Rows written, dead ones too."""
        return len(self._live)

    @property
    def dead(self) -> int:
        return len(self._live) - self._count

    def live(self) -> npt.NDArray[np.bool_]:
        """(rows,) bool, not to be changed."""
        if self._mask is None:
            self._mask = np.frombuffer(bytes(self._live), np.bool_)
        return self._mask

    def entry(self, row: int) -> tuple[str, Metadata]:
        """Key and metadata of a live row. Raises BundleError if the table is damaged there."""
        if self._table is not None and row < self._in_table:
            return self._table.entry(row)
        key, metadata = self._newer[row - self._in_table]
        return key, dict(metadata)  # so that a caller's changes stay the caller's

    def by_row(self) -> Iterator[tuple[str, Metadata] | None]:
        """Key and metadata of every row, None for a dead one."""
        return (self.entry(row) if live else None for row, live in enumerate(self._live))

    def row(self, key: str) -> int | None:
        row = self._rows.get(key)
        if row is None and self._table is not None:
            row = self._table.row(key)
        return row if row is not None and self._live[row] else None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        """Live keys, in the order of their rows."""
        return (entry[0] for entry in self.by_row() if entry is not None)


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
