"""An index without its dead rows, written as the files of its next generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.retrieval.entries import Entries
from clipedge.retrieval.entrylog import Batch, Metadata, append_batch, pack_batch
from clipedge.retrieval.manifest import IndexManifest
from clipedge.retrieval.segments import sync_folder

__all__ = ["write_compacted"]


def write_compacted(
    folder: Path,
    manifest: IndexManifest,
    batches: Iterable[tuple[Sequence[tuple[str, Metadata]], npt.NDArray[np.float16]]],
) -> tuple[Entries, int]:
    """Write live entries, each batch with its (N, D) vectors, as the generation of ``manifest``.

    Nothing names these files until the manifest is saved. Returns the entries as they are there, and the log's end.
    """
    segments, log = manifest.segments(folder), manifest.log_path(folder)
    log.write_bytes(b"")
    entries, end = Entries(), 0
    for some, vectors in batches:
        keys, metadata = zip(*some, strict=True)
        batch = Batch(entries.rows, keys, metadata, ())
        segments.write(batch.first_row, vectors)
        end = append_batch(log, end, pack_batch(batch))
        entries.apply(batch)
    sync_folder(folder)
    return entries, end
