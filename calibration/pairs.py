"""Lists of pictures with captions: CSV, TSV and JSON Lines.

A table's first line names its columns, a line of JSON is an object. The column of the picture is called as one of
``PICTURE_COLUMNS``, that of the caption as one of ``CAPTION_COLUMNS``: what OpenCLIP, the Hugging Face hub and others
write. Paths are relative to the list's folder. In JSON a caption may be a list of several; in a table a picture may be
named on several lines, each with another caption.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clipedge.errors import UsageError

__all__ = ["PAIR_SUFFIXES", "read_pairs"]

PAIR_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl"})
PICTURE_COLUMNS = ("path", "image", "file_name", "filepath")
CAPTION_COLUMNS = ("caption", "captions", "text", "title")


def read_pairs(path: Path) -> dict[Path, tuple[str, ...]]:
    """The captions by picture, in the list's order. Pictures are not looked at.

    Raises UsageError, naming the line, for a list that cannot be read or is no table, that lacks one of the columns,
    and for a line without picture or caption.
    """
    pairs: dict[Path, tuple[str, ...]] = {}
    for number, row in _json_rows(path) if path.suffix.lower() == ".jsonl" else _table_rows(path):
        name, captions = _value(path, number, row, PICTURE_COLUMNS), _value(path, number, row, CAPTION_COLUMNS)
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise UsageError(f"{path}, line {number}: expected the path of a picture, found {name!r:.80}")
        texts = captions if isinstance(captions, list) and captions else [captions]
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise UsageError(
                    f"{path}, line {number}: {name:.80} has no caption (found {text!r:.40}); write one, or leave the "
                    "line out"
                )
        item = path.parent / name.strip()
        pairs[item] = tuple(dict.fromkeys([*pairs.get(item, ()), *(" ".join(text.split()) for text in texts)]))
    if not pairs:
        raise UsageError(f"{path} names no picture: write a line for each, with its path and its caption")
    return pairs


def _table_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number of the line, values by column)."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            for row in reader:
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"{path} is no table in UTF-8 ({error}); write it again, with a first line path,caption"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: JSON Lines are UTF-8 text, and byte {error.start} is none") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UsageError(f'{path}, line {number}: expected an object, {{"path": "a.jpg", "caption": "a cat"}}')
        yield number, row


def _value(path: Path, number: int, row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """What the row has in the first of these columns that it has."""
    for name in names:
        if name in row:
            return row[name]
    found = ", ".join(str(name) for name in list(row)[:6])
    raise UsageError(f"{path}, line {number}: expected a column {' or '.join(names)}, found {found}")
