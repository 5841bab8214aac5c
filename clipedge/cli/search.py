"""clipedge search INDEX --text T | --image F, and clipedge search --captions FILE --image F --bundle B"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from clipedge.cli import print_json
from clipedge.cli.options import add_engine_options, add_picture_options, open_clip, save_sheet
from clipedge.drawing.sheet import contact_sheet
from clipedge.errors import ImageError, UsageError
from clipedge.images.pixels import open_rgb
from clipedge.retrieval.index import Hit, Index
from clipedge.retrieval.manifest import read_index_manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", nargs="?", help="what `clipedge index` wrote")
    parser.add_argument("--text", metavar="T", help="find pictures by a text")
    parser.add_argument("--image", metavar="F", help="find pictures by a picture")
    parser.add_argument("--bundle", help="bundle of the index's model (default: where it lay when the index was made)")
    parser.add_argument("--top", type=int, default=10, help="hits to show (default: 10)")
    parser.add_argument("--sheet", metavar="FILE", help="also draw the pictures found, as PNG or JPEG")
    parser.add_argument(
        "--captions",
        metavar="FILE",
        help="instead of an index: describe --image by the best of these texts, one a line",
    )
    parser.add_argument("--exact", action="store_true", help="compare with every entry, however many there are")
    add_picture_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.top < 1:
        raise UsageError(f"--top is how many hits to show: expected 1 or more, found {arguments.top}")
    if arguments.captions is not None:
        return _describe(arguments)
    if arguments.index is None:
        raise UsageError("name an index to search, or --captions FILE to describe a picture by")
    if (arguments.text is None) == (arguments.image is None):
        raise UsageError("give what to search for: either --text T or --image F")
    clip = open_clip(arguments, _bundle_of(arguments))
    index = Index.open(arguments.index, clip.manifest.space_id)
    query = clip.encode_image(arguments.image) if arguments.text is None else clip.encode_text(arguments.text)
    (hits,) = index.search(query, arguments.top, exact=arguments.exact)
    if arguments.json:
        found = [{"key": hit.key, "score": hit.score, "metadata": hit.metadata} for hit in hits]
        print_json({**_question(arguments), "index": arguments.index, "entries": len(index), "hits": found})
    else:
        print("\n".join(f"{hit.score:.3f}  {hit.key}" for hit in hits))
    if arguments.sheet and hits:
        captions = [f"{hit.score:.3f}\n{Path(hit.key).name}" for hit in hits]
        save_sheet(contact_sheet(map(_picture, hits), captions), arguments.sheet)
    return 0


def _describe(arguments: argparse.Namespace) -> int:
    """Image to text: the captions of highest cosine with the picture."""
    if arguments.index is not None or arguments.text is not None or arguments.sheet is not None:
        raise UsageError("--captions describes --image with --bundle; leave out the index, --text and --sheet")
    if arguments.image is None or arguments.bundle is None:
        raise UsageError("--captions needs the picture, --image F, and the model, --bundle B")
    captions = _captions(arguments.captions)
    clip = open_clip(arguments, arguments.bundle)
    scores = clip.encode_text(captions) @ clip.encode_image(arguments.image)[0]
    best = np.argsort(-scores, kind="stable")[: arguments.top]
    if arguments.json:
        found = [{"caption": captions[place], "score": float(scores[place])} for place in best]
        print_json({**_question(arguments), "captions": found})
    else:
        print("\n".join(f"{scores[place]:.3f}  {captions[place]}" for place in best))
    return 0


def _question(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"text": arguments.text, "image": arguments.image}


def _captions(file: str) -> list[str]:
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"--captions {file} is not UTF-8 text; it has one caption a line") from None
    except OSError as error:
        raise UsageError(f"--captions {file} cannot be read ({error.strerror}); it has one caption a line") from None
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise UsageError(f"--captions {file} holds no caption; write one a line")
    return captions


def _bundle_of(arguments: argparse.Namespace) -> str:
    """The bundle named, or the one that the index was made with if it is still there."""
    manifest = read_index_manifest(arguments.index)
    if arguments.bundle is not None:
        return str(arguments.bundle)
    if manifest.bundle is None or not Path(manifest.bundle).is_dir():
        raise UsageError(
            f"the bundle that {arguments.index} was made with is not at {manifest.bundle} any more: name it, or any "
            "bundle of the same model, with --bundle"
        )
    return manifest.bundle


def _picture(hit: Hit) -> PIL.Image.Image:
    """The picture behind a hit; a grey one if it cannot be read any more, or the key is no path."""
    try:
        return open_rgb(hit.key)
    except ImageError:
        return PIL.Image.new("RGB", (8, 8), "grey")
