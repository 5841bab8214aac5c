"""What an index holds, from its files: a table of the entries up to some byte of the log, and the log from there on.

The log is the truth and stays whole. A table only spares its reading: where that file is missing, the log is read from
its beginning.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clipedge.retrieval.entries import Entries
from clipedge.retrieval.entrylog import read_batches
from clipedge.retrieval.entrytable import open_table, write_table
from clipedge.retrieval.manifest import IndexManifest

__all__ = ["read_entries", "write_snapshot"]

LOG_BYTES = 1024 * 1024  # read in about 20 ms


def read_entries(folder: Path, manifest: IndexManifest) -> tuple[Entries, int]:
    """The entries, and the byte at which the log's next record goes. Raises BundleError for files that are damaged."""
    table = open_table(manifest.table_path(folder)) if manifest.table_end else None
    entries = Entries(table)
    start = 0 if table is None else manifest.table_end
    batches, end = read_batches(manifest.log_path(folder), start, entries.rows)
    for batch in batches:
        entries.apply(batch)
    return entries, end


def write_snapshot(folder: Path, manifest: IndexManifest, entries: Entries, end: int) -> IndexManifest:
    """Write a table of the entries if the log has grown much since the last, up to its byte ``end``.

    Returns the manifest that names it. Killed in here, it leaves the index as it was.
    """
    if end - manifest.table_end < LOG_BYTES:
        return manifest
    newer = replace(manifest, table_end=end)
    write_table(newer.table_path(folder), entries.by_row())
    newer.save(folder)
    newer.clear_leftovers(folder)
    return newer
