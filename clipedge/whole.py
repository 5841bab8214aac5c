"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["whole_file", "write_whole"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden sibling to be written, which then takes the place of ``path``; its bytes are on the disk before that.

    It ends as ``path`` does, for writers that go by the name. After an exception ``path`` is what it was.
    """
    staging = path.with_name(f".{path.stem}.{os.getpid()}.staging{path.suffix}")
    try:
        yield staging
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        staging.replace(path)
    finally:
        with suppress(OSError):  # where it could not be made it cannot be removed
            staging.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whose folders are made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as staging:
        staging.write_bytes(data)
