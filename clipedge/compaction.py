"""An index without its dead rows, written as the files of its next generation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.entries import Entries
from clipedge.entrylog import Batch, append_batch, pack_batch
from clipedge.index_manifest import IndexManifest
from clipedge.segments import gather, sync_folder

__all__ = ["write_compacted"]

BATCH_ROWS = 1024


def write_compacted(
    folder: Path, manifest: IndexManifest, old: Entries, vectors: Sequence[npt.NDArray[np.float16]]
) -> tuple[Entries, int]:
    """Write the live entries of ``old`` as the generation of ``manifest``, in the order of their rows.

    Nothing names these files until the manifest is saved. Returns the entries as they are there, and the log's end.
    """
    segments, log = manifest.segments(folder), manifest.log_path(folder)
    log.write_bytes(b"")
    entries, end = Entries(), 0
    live = np.flatnonzero(old.live())
    for start in range(0, len(live), BATCH_ROWS):
        some = live[start : start + BATCH_ROWS]
        segments.write(start, gather(vectors, some, manifest.segment_rows))
        rows = some.tolist()
        batch = Batch(start, tuple(map(old.key, rows)), tuple(map(old.metadata, rows)), ())
        end = append_batch(log, end, pack_batch(batch))
        entries.apply(batch)
    sync_folder(folder)
    return entries, end
