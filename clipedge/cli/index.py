"""clipedge index BUNDLE DIR --output INDEX, and clipedge index --output INDEX --parquet FILE"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

from clipedge.backends import engine_facts
from clipedge.cli import print_json
from clipedge.cli.options import add_bundle_argument, add_engine_options, add_picture_options, open_clip
from clipedge.errors import UsageError
from clipedge.folders import read_folder
from clipedge.model import Clip
from clipedge.retrieval.index import Index
from clipedge.retrieval.indexing import Indexing, index_folder
from clipedge.retrieval.lists import AUTOMATIC_ROWS
from clipedge.retrieval.manifest import INDEX_MANIFEST, read_index_manifest
from clipedge.retrieval.parquet import write_parquet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_argument(parser, nargs="?")
    parser.add_argument("directory", nargs="?", help="pictures, in sub-folders too")
    parser.add_argument(
        "--output", required=True, metavar="INDEX", help="the index's folder; if it is there, it is brought up to date"
    )
    parser.add_argument(
        "--parquet",
        metavar="FILE",
        help="also write all entries as Parquet, for vector databases; without BUNDLE and DIR only that",
    )
    add_picture_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.bundle is None and arguments.parquet is not None:
        return _export(arguments)
    if arguments.directory is None:
        raise UsageError("name the bundle and the folder of pictures, or only --output INDEX and --parquet FILE")
    pictures = read_folder(arguments.directory)
    clip = open_clip(arguments, arguments.bundle)
    with _open_or_create(arguments.output, clip) as index:
        result = index_folder(index, clip.encode_image, pictures, _show)
        if index.unlisted >= AUTOMATIC_ROWS:
            index.build_lists(_show)
        entries, listed = len(index), index.manifest.listed_rows
        if arguments.parquet is not None:
            write_parquet(index, arguments.parquet, _show)
    if arguments.json:
        facts = {
            "index": arguments.output,
            "entries": entries,
            "listed_rows": listed,
            "parquet": arguments.parquet,
            "engine": engine_facts(clip.image_engine),
        }
        print_json({**facts, **asdict(result)})
    else:
        print("\n".join(_lines(arguments.output, entries, result)))
        if arguments.parquet is not None:
            print(f"  written to {arguments.parquet}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    """The index as it is, for which no model is needed."""
    index = Index.open(arguments.output, read_index_manifest(arguments.output).space_id)
    entries = write_parquet(index, arguments.parquet, _show)
    if arguments.json:
        print_json({"index": arguments.output, "entries": entries, "parquet": arguments.parquet})
    else:
        print(f"{arguments.parquet}: {entries} pictures of {arguments.output}")
    return 0


def _show(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total} pictures", end="\n" if done == total else "", file=sys.stderr)


def _open_or_create(folder: str, clip: Clip) -> Index:
    manifest = clip.manifest
    if (Path(folder) / INDEX_MANIFEST).exists():
        return Index.open(folder, manifest.space_id, writable=True)
    bundle = os.fspath(clip.bundle.folder.absolute())
    return Index.create(folder, manifest.space_id, manifest.embedding_dim, bundle)


def _lines(folder: str, entries: int, result: Indexing) -> list[str]:
    lines = [
        f"{folder}: {entries} pictures",
        f"  {result.added} added, {result.replaced} replaced, {result.unchanged} unchanged, {result.removed} removed",
    ]
    if result.unreadable:
        lines.append(f"  {len(result.unreadable)} not readable, left out:")
    return lines + [f"    {line}" for line in result.unreadable]
