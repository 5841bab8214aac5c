"""An index as a Parquet file, from which vector databases are filled.

    key         string          bytes of a file's name that are no UTF-8 as backslash escapes
    metadata    string          a JSON object
    vector      fixed_size_list<float32>[D]    of unit length to the 11 bits of float16

The file's own metadata has ``clipedge.space_id``: vectors of another space are not to be compared with these.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.errors import MissingDependencyError, UsageError
from clipedge.retrieval.entrylog import Metadata
from clipedge.retrieval.index import Index
from clipedge.whole import whole_file

__all__ = ["write_parquet"]

GROUP_ROWS = 8192  # rows held in memory at once: 16 MiB at 512 numbers


def write_parquet(
    index: Index, path: str | os.PathLike[str], progress: Callable[[int, int], object] = lambda done, total: None
) -> int:
    """Write every entry of an index, in its order; returns how many. The file appears whole or not.

    ``progress`` is called with the entries done and all. Raises MissingDependencyError without pyarrow, UsageError if
    the file cannot be written, BundleError if the index is damaged.
    """
    arrow, parquet = _pyarrow()
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file, such as {path / 'index.parquet'}")
    schema = arrow.schema(
        [
            arrow.field("key", arrow.string(), nullable=False),
            arrow.field("metadata", arrow.string(), nullable=False),
            arrow.field("vector", arrow.list_(arrow.float32(), index.manifest.dim), nullable=False),
        ],
        {"clipedge.space_id": index.manifest.space_id},
    )
    # Without dictionaries: vectors do not repeat. Compressed: of what was float16, half of the bits are zero.
    settings = {"compression": "zstd", "use_dictionary": False}
    done = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as staging, parquet.ParquetWriter(staging, schema, **settings) as writer:
            for entries, vectors in index.batches(GROUP_ROWS):
                writer.write_batch(_batch(arrow, schema, entries, vectors))
                done += len(entries)
                progress(done, len(index))
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror or error}); name a file that can be") from None
    return done


def _batch(
    arrow: Any, schema: Any, entries: Sequence[tuple[str, Metadata]], vectors: npt.NDArray[np.floating[Any]]
) -> Any:
    keys = [key.encode("utf-8", "backslashreplace").decode() for key, _ in entries]
    metadata = [json.dumps(item) for _, item in entries]
    numbers = arrow.array(np.asarray(vectors, np.float32).ravel())
    lists = arrow.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])
    return arrow.record_batch([arrow.array(keys), arrow.array(metadata), lists], schema=schema)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingDependencyError(
            'Parquet files need the pyarrow library; install it with pip install "clipedge[parquet]"'
        ) from None
    return pyarrow, pyarrow.parquet
