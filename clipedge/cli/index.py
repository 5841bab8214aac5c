"""clipedge index BUNDLE DIR --output INDEX"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

from clipedge.backends import engine_facts
from clipedge.cli import print_json
from clipedge.cli.options import add_engine_options, add_picture_options, open_clip
from clipedge.folders import read_folder
from clipedge.graph import AUTOMATIC_ROWS, has_usearch
from clipedge.index import Index
from clipedge.index_manifest import INDEX_MANIFEST
from clipedge.indexing import Indexing, index_folder
from clipedge.model import Clip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle")
    parser.add_argument("directory", help="pictures, in sub-folders too")
    parser.add_argument(
        "--output", required=True, metavar="INDEX", help="the index's folder; if it is there, it is brought up to date"
    )
    parser.add_argument(
        "--graph",
        action="store_true",
        help=f"build a graph for fast approximate search (by itself from {AUTOMATIC_ROWS} pictures on)",
    )
    add_picture_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    pictures = read_folder(arguments.directory)
    clip = open_clip(arguments, arguments.bundle)

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} pictures", end="\n" if done == total else "", file=sys.stderr)

    with _open_or_create(arguments.output, clip) as index:
        result = index_folder(index, clip.encode_image, pictures, show)
        if arguments.graph or (index.uncovered >= AUTOMATIC_ROWS and has_usearch()):
            index.build_graph(show)
        entries, covered = len(index), index.manifest.graph_rows
    if arguments.json:
        facts = {
            "index": arguments.output,
            "entries": entries,
            "graph_rows": covered,
            "engine": engine_facts(clip.image_engine),
        }
        print_json({**facts, **asdict(result)})
    else:
        print("\n".join(_lines(arguments.output, entries, result)))
    return 0


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
