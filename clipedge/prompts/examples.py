"""A labelled folder as embeddings: what a bank is fitted on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipedge.errors import ImageError, UsageError
from clipedge.folders import PictureFolder
from clipedge.images.pixels import Images

__all__ = ["Examples", "embed_examples"]


@dataclass(frozen=True, eq=False)
class Examples:
    """``image_embeds`` (N, D) float32 of pictures that show the labels ``truths`` (N,), -1 for nothing known.

    ``unreadable`` has a line for each picture that was left out.
    """

    image_embeds: npt.NDArray[np.float32]
    truths: npt.NDArray[np.int64]
    unreadable: tuple[str, ...]


def embed_examples(
    encode_image: Callable[[Images], npt.NDArray[np.float32]],
    pictures: PictureFolder,
    labels: Sequence[str],
    unknown: str,
    progress: Callable[[int], object] = lambda done: None,
) -> Examples:
    """Embed a folder whose sub-folders are named for labels, and one ``unknown`` for pictures of none of them.

    Raises UsageError if pictures lie outside of sub-folders, if a sub-folder is named for neither, if ``unknown`` is
    itself a label, or if no picture can be read.
    """
    places = _places(pictures, labels, unknown)
    embeds, truths, unreadable = [], [], []
    for done, path in enumerate(pictures.paths, start=1):
        try:
            embeds.append(encode_image([path]))
            truths.append(places[done - 1])
        except ImageError as error:
            unreadable.append(str(error))
        progress(done)
    if not embeds:
        raise UsageError(f"none of the {len(pictures.paths)} pictures can be read; the first: {unreadable[0]}")
    return Examples(np.concatenate(embeds), np.array(truths, np.int64), tuple(unreadable))


def _places(pictures: PictureFolder, labels: Sequence[str], unknown: str) -> npt.NDArray[np.int64]:
    if pictures.labels is None:
        raise UsageError(
            f"{pictures.folder} has pictures outside of sub-folders; a fit needs one sub-folder for each label, "
            f"named for it, and one named {unknown!r} for pictures of none of them"
        )
    if unknown in labels:
        raise UsageError(f"{unknown!r} is a label; name the folder of pictures of none of them otherwise (--unknown)")
    strange = [name for name in pictures.class_names if name not in labels and name != unknown]
    if strange:
        raise UsageError(
            f"the sub-folders {', '.join(map(repr, strange[:5]))} are no labels ({', '.join(map(repr, labels[:5]))}…) "
            f"and not {unknown!r}: name sub-folders and labels alike"
        )
    order = [-1 if name == unknown else list(labels).index(name) for name in pictures.class_names]
    return np.array(order, np.int64)[pictures.labels]
