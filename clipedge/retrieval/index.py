"""Index: retrieval over embeddings of one space, in a folder that survives being killed while it is written.

    index.json              what it is (``index_manifest.py``), replaced in one step
    entries-G.log           keys and metadata, one checked record a batch (``entrylog.py``)
    entries-G-E.table       if that is long: what its first E bytes add up to (``entrytable.py``, ``entrysnapshot.py``)
    vectors-G-N.f16         the vectors, float16, append-only (``segments.py``)
    lists-G-R.ivf           if they were made: lists of the first R of them (``lists.py``, ``listfile.py``)
    lock                    held by the one writer

A batch's vectors reach the disk before its record does, and only a whole record counts. Compaction writes both anew as
generation G + 1 and then replaces the manifest, which names G; files of other generations are leftovers.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.errors import BundleError, SpaceError, UsageError
from clipedge.retrieval.compaction import write_compacted
from clipedge.retrieval.entries import check_entries
from clipedge.retrieval.entrylog import Batch, Metadata, append_batch, pack_batch
from clipedge.retrieval.entrysnapshot import read_entries, write_snapshot
from clipedge.retrieval.listfile import Lists, open_lists
from clipedge.retrieval.lists import build_lists, nearest_by_lists
from clipedge.retrieval.manifest import IndexManifest, lock_folder, prepare_folder, read_index_manifest
from clipedge.retrieval.nearest import Ranking, checked_vectors, nearest
from clipedge.retrieval.segments import Vectors

__all__ = ["Hit", "Index"]

SEGMENT_ROWS = 65536  # 64 MiB at 512 numbers
BATCH_ROWS = 1024
# Vectors up to here are searched in float32, kept in memory: to convert them takes 20 times as long as to multiply.
CACHE_BYTES = 64 * 1024 * 1024
MIN_DEAD = 1024  # dead rows before a compaction is worth its writing; then as soon as they outnumber the live ones


@dataclass(frozen=True)
class Hit:
    """``score`` is the cosine of query and entry, to the 11 bits of float16."""

    key: str
    score: float
    metadata: Metadata


class Index:
    """Embeddings under keys (such as the paths of pictures), each with a JSON object as metadata.

    Opened for reading it is what the folder held at that moment, whoever writes meanwhile. Embeddings of any precision
    of one model may be mixed: they share the space. Not made for several threads at once.
    """

    def __init__(self, folder: Path, manifest: IndexManifest, lock: int | None) -> None:
        """Use ``Index.open`` or ``Index.create``."""
        self.folder = folder
        self.manifest = manifest
        self._entries, self._end = read_entries(folder, manifest)
        self._written = True  # False while the state in memory is between two batches
        self._rows: Vectors | None = None
        self._cache: list[npt.NDArray[np.float32]] | None = None
        self._lists: Lists | None = None
        self._vectors()  # what is missing shows now; and a reader keeps its files when a compaction replaces them
        self._unlock = None if lock is None else weakref.finalize(self, os.close, lock)

    @classmethod
    def create(cls, folder: str | os.PathLike[str], space_id: str, dim: int, bundle: str | None = None) -> Index:
        """A new, empty index, open for writing, for embeddings of ``dim`` numbers of the space ``space_id``.

        Raises UsageError if ``folder`` is there already and not empty, or cannot be written; IndexBusyError if another
        process makes one there.
        """
        folder, manifest = Path(folder), IndexManifest(space_id, dim, SEGMENT_ROWS, 1, bundle)
        lock = prepare_folder(folder, manifest)
        try:
            return cls(folder, manifest, lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def open(cls, folder: str | os.PathLike[str], space_id: str, *, writable: bool = False) -> Index:
        """Open an index whose embeddings are of the space ``space_id``: the manifest's of the bundle in use.

        Raises UsageError if there is none, BundleError if it is damaged, SpaceError if it belongs to another model,
        IndexBusyError if it is to be written and another process does.
        """
        folder = Path(folder)
        read_index_manifest(folder)  # before a lock is made in a folder that is no index
        lock = lock_folder(folder) if writable else None
        try:
            index = cls._loaded(folder, space_id, lock)
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise
        if writable:
            index.manifest.clear_leftovers(folder)
        return index

    @classmethod
    def _loaded(cls, folder: Path, space_id: str, lock: int | None) -> Index:
        manifest = read_index_manifest(folder)
        if manifest.space_id != space_id:
            raise SpaceError(
                f"the index {folder} was made with another model (space {manifest.space_id[:12]}…) than this one "
                f"(space {space_id[:12]}…): use a bundle of that model, or build the index again"
            )
        while True:
            try:
                return cls(folder, manifest, lock)
            except BundleError:
                newer = read_index_manifest(folder)
                if newer == manifest:
                    raise
                manifest = newer  # compacted between the reading of its manifest and of its files

    def add(
        self, keys: Sequence[str], embeddings: npt.NDArray[np.float32], metadata: Sequence[Metadata] | None = None
    ) -> None:
        """Put (N, D) L2-normalised embeddings under N keys; a key that is there already is replaced.

        Batches of 1024 are on the disk one after the other; whoever is killed in between loses the last at most.
        Raises UsageError for other shapes, for what is not of unit length, and for a key given twice.
        """
        keys, metadata = list(keys), [{} for _ in keys] if metadata is None else list(metadata)
        check_entries(keys, metadata)
        vectors = checked_vectors(embeddings, self.manifest.dim, "embeddings")
        if len(vectors) != len(keys):
            raise UsageError(f"{len(keys)} keys, but {len(vectors)} embeddings: give one for each")
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            raise UsageError("embeddings have to be of unit length, as encode_image and encode_text return them")
        for start in range(0, len(keys), BATCH_ROWS):
            piece = slice(start, start + BATCH_ROWS)
            self._append(keys[piece], metadata[piece], [], vectors[piece].astype(np.float16))
        self._compact_if_due()

    def remove(self, keys: Iterable[str]) -> int:
        """Take entries out; returns how many of the keys were there."""
        present = [key for key in dict.fromkeys(keys) if key in self]
        for start in range(0, len(present), BATCH_ROWS):
            self._append([], [], present[start : start + BATCH_ROWS], np.empty((0, self.manifest.dim), np.float16))
        self._compact_if_due()
        return len(present)

    def search(self, queries: npt.NDArray[np.float32], k: int = 10, *, exact: bool = False) -> list[list[Hit]]:
        """The ``k`` entries of highest cosine for each of (Q, D) queries, best first; all if there are fewer.

        Exact, in the order of the true inner products (``nearest.py``), unless the index has lists (``lists.py``):
        then these propose what is ranked, if not ``exact``. Entries of equal score come in the order in which they were
        added. Raises UsageError for queries of another shape, zero or not finite.
        """
        if type(k) is not int or k < 1:
            raise UsageError(f"k is how many entries to find: expected 1 or more, found {k!r}")
        vectors = checked_vectors(queries, self.manifest.dim, "queries")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not lengths.all():
            raise UsageError("a query is zero and has no direction")
        found = self._found(vectors / lengths, k, exact)
        return [
            [Hit(key, score, metadata) for score, (key, metadata) in zip(scores.tolist(), entries, strict=True)]
            for scores, entries in ((scores, map(self._entries.entry, rows.tolist())) for scores, rows in found)
        ]

    def compact(self) -> None:
        """Write the live entries anew, lists too, and drop the dead; old files stay until the new ones are complete."""
        self._check_writable()
        had_lists = self.manifest.listed_rows > 0
        generation = self.manifest.generation + 1
        manifest = replace(self.manifest, generation=generation, listed_rows=0, table_end=0)
        entries, end = write_compacted(self.folder, manifest, self.batches())
        manifest.save(self.folder)
        self.manifest, self._entries, self._end = manifest, entries, end
        self._forget_views()
        self.manifest.clear_leftovers(self.folder)
        if had_lists and len(self):
            self.build_lists()

    def build_lists(self, progress: Callable[[int, int], object] = lambda done, total: None) -> None:
        """Make lists of all entries, for fast approximate search; later ones are searched exactly beside them.

        Lists that cover them all already are kept. ``progress`` is called with the entries done and all. Raises
        UsageError for an empty index.
        """
        self._check_writable()
        if not len(self):
            raise UsageError("an empty index needs no lists: add embeddings first")
        manifest = replace(self.manifest, listed_rows=self._entries.rows)
        if manifest == self.manifest:
            with suppress(BundleError):
                open_lists(manifest.lists_path(self.folder), manifest.listed_rows, manifest.dim)
                return
        build_lists(manifest.lists_path(self.folder), self._vectors(), self._entries.live(), progress)
        self.manifest = manifest
        self.manifest.save(self.folder)
        self._forget_views()
        self.manifest.clear_leftovers(self.folder)

    def metadata(self, key: str) -> Metadata:
        """The metadata of an entry. Raises UsageError if the key is not there."""
        row = self._entries.row(key)
        if row is None:
            raise UsageError(f"the index {self.folder} has no entry {key!r}")
        return self._entries.entry(row)[1]

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[tuple[list[tuple[str, Metadata]], npt.NDArray[np.float16]]]:
        """All entries, ``rows`` at once, in their order: keys with metadata, and (N, D) vectors."""
        live = np.flatnonzero(self._entries.live())
        for start in range(0, len(live), rows):
            some = live[start : start + rows]
            yield [self._entries.entry(row) for row in some.tolist()], self._vectors().take(some)

    @property
    def unlisted(self) -> int:
        """Rows that are in no list: they are searched exactly."""
        return self._entries.rows - self.manifest.listed_rows

    def __contains__(self, key: str) -> bool:
        return self._entries.row(key) is not None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        """The keys, in the order in which they were added or replaced."""
        return iter(self._entries)

    def close(self) -> None:
        """Let others write. Reading goes on to work. Of a log that has grown long a table is written first."""
        if self._unlock is not None and self._unlock.alive:
            try:
                if self._written:
                    self.manifest = write_snapshot(self.folder, self.manifest, self._entries, self._end)
            finally:
                self._unlock()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _found(self, queries: npt.NDArray[np.float32], k: int, exact: bool) -> list[Ranking]:
        live, listed = self._entries.live(), self.manifest.listed_rows
        if exact or not listed:
            return nearest(self._searchable(), live, queries, k)
        if self._lists is None:
            self._lists = open_lists(self.manifest.lists_path(self.folder), min(listed, len(live)), self.manifest.dim)
        return nearest_by_lists(self._lists, listed, self._vectors(), live, not self._entries.dead, queries, k)

    def _append(
        self, keys: list[str], metadata: list[Metadata], removed: list[str], vectors: npt.NDArray[np.float16]
    ) -> None:
        self._check_writable()
        batch = Batch(self._entries.rows, tuple(keys), tuple(metadata), tuple(removed))
        record = pack_batch(batch)
        self.manifest.segments(self.folder).write(batch.first_row, vectors)
        end = append_batch(self.manifest.log_path(self.folder), self._end, record)
        self._written = False
        self._entries.apply(batch)
        self._end = end
        self._written = True
        self._forget_views()

    def _compact_if_due(self) -> None:
        if self._entries.dead >= MIN_DEAD and self._entries.dead > len(self):
            self.compact()

    def _check_writable(self) -> None:
        if self._unlock is None or not self._unlock.alive:
            raise UsageError("the index is open for reading only: open it with writable=True")
        if not self._written:
            raise UsageError("the last write to the index was interrupted: open it again")

    def _forget_views(self) -> None:
        self._rows, self._cache, self._lists = None, None, None

    def _vectors(self) -> Vectors:
        if self._rows is None:
            self._rows = self.manifest.segments(self.folder).open(self._entries.rows)
        return self._rows

    def _searchable(self) -> Sequence[npt.NDArray[np.floating[Any]]]:
        if self._entries.rows * self.manifest.dim * 4 > CACHE_BYTES:
            return self._vectors().maps
        if self._cache is None:
            self._cache = [vectors.astype(np.float32, order="F") for vectors in self._vectors().maps]
        return self._cache
