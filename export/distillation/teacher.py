"""The teacher looks once: its embeddings of every view of every picture and of every caption, kept in shards."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from clipedge.calibration.data import PictureItem, Pictures, open_item
from clipedge.errors import ImageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation.shards import Cache, Shard
from clipedge.export.proof import Encoder, source_encoder
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_image_tower
from clipedge.export.training.augment import PARAMETERS, Augmentation, augmented, draw_view
from clipedge.export.training.data import warn_of_unreadable
from clipedge.export.training.processes import join_processes
from clipedge.parallel import cores, parallel_map
from clipedge.text import TruncatedTextWarning

__all__ = ["Lessons", "ask_teacher", "teacher_facts"]

SHARD_PICTURES = 512  # what a killed run loses at most, times the number of views
SHARD_TEXTS = 2048
BATCH = 16


@dataclass(frozen=True, eq=False)
class Lessons:
    """What the teacher says to a set of pictures.

    ``rows`` (M,) int64 are the pictures that could be read, ``unreadable`` has a line for each other one. For each of
    the M: ``views`` (M, V, parameters) float32 and ``images`` (M, V, D) float16, the teacher's embeddings of them;
    ``captions`` are indices into ``texts`` (C, D) float16, its embeddings of the distinct captions, None without any.
    Embeddings are L2-normalised; float16 moves a cosine by less than 0.001.
    """

    rows: npt.NDArray[np.int64]
    unreadable: tuple[str, ...]
    views: npt.NDArray[np.float32]
    images: npt.NDArray[np.float16]
    captions: tuple[npt.NDArray[np.int64], ...] | None = None
    texts: npt.NDArray[np.float16] | None = None


def teacher_facts(teacher: Checkpoint, data_sha256: str, augmentation: Augmentation, views: int) -> dict[str, Any]:
    """What embeddings depend on: the keys that a cache is bound to."""
    return {
        "format": "clipedge-teacher-1",
        "space_id": teacher.space_id,
        "preprocessing": dataclasses.asdict(teacher.preprocessing),
        "data_sha256": data_sha256,
        "augmentation": dataclasses.asdict(augmentation),
        "views": views,
    }


def ask_teacher(
    teacher: Checkpoint, pictures: Pictures, augmentation: Augmentation, views: int, cache: Cache, captions: bool
) -> Lessons:
    """Embed ``views`` views of each picture and, if asked for, all captions; what ``cache`` has is not computed again.

    Of several processes each makes a share of the shards, and in the end all have the same lessons. Warns of pictures
    that cannot be read, names and counts them; raises ImageError if none can.
    """
    shapes = {"rows": (None,), "views": (None, views, len(PARAMETERS)), "images": (None, views, teacher.embed_dim)}
    encode = source_encoder(build_image_tower(teacher).to(join_processes().device))

    def look(number: int) -> Shard:
        start = number * SHARD_PICTURES
        items = pictures.items[start : start + SHARD_PICTURES]
        make = partial(_picture_shard, encode, teacher, items, start, augmentation, views)
        return cache.shard(f"pictures-{number:05d}", make, shapes)

    shards = _shards(look, -(-len(pictures) // SHARD_PICTURES), "the teacher looks")
    rows = np.concatenate([shard.tensors["rows"] for shard in shards])
    unreadable = tuple(note for shard in shards for note in shard.notes)
    if not len(rows):
        raise ImageError(f"none of the {len(pictures)} pictures of {pictures.source} can be read: {unreadable[0]}")
    warn_of_unreadable(unreadable, len(pictures))
    lessons = Lessons(
        rows,
        unreadable,
        np.concatenate([shard.tensors["views"] for shard in shards]),
        np.concatenate([shard.tensors["images"] for shard in shards]),
    )
    if not captions:
        return lessons
    assert pictures.captions is not None
    return _with_texts(lessons, SourceTexts(teacher), pictures.captions, cache)


def _shards(shard: Callable[[int], Shard], count: int, text: str) -> list[Shard]:
    """``shard`` of each number below ``count``: the own share of them, and then those that others have written."""
    processes = join_processes()
    share = range(processes.process_index, count, processes.num_processes)
    hidden = None if processes.is_main_process else True
    own = {number: shard(number) for number in tqdm(share, text, unit="shard", disable=hidden, leave=False)}
    processes.wait_for_everyone()
    return [own[number] if number in own else shard(number) for number in range(count)]


def _picture_shard(
    encode: Encoder,
    teacher: Checkpoint,
    items: Sequence[PictureItem],
    first: int,
    augmentation: Augmentation,
    views: int,
) -> Shard:
    """All views of some pictures; ``first`` is the number of the first of them in its set."""

    def look(row: int) -> npt.NDArray[np.uint8] | ImageError:
        try:
            picture = open_item(items[row])
        except ImageError as error:
            return error
        return np.stack([augmented(picture, view, teacher.preprocessing) for view in parameters[row]])

    parameters = [[draw_view(augmentation, first + row, view) for view in range(views)] for row in range(len(items))]
    rows, embeds, unreadable = [], [], []
    for start in range(0, len(items), BATCH):
        batch = range(start, min(start + BATCH, len(items)))
        for row, pixels in zip(batch, parallel_map(look, batch, cores()), strict=True):
            if isinstance(pixels, ImageError):
                unreadable.append(str(pixels))
            else:
                rows.append(row)
                embeds.append(encode(pixels))
    return Shard(
        {
            "rows": np.array(rows, np.int64) + first,
            "views": np.array([parameters[row] for row in rows], np.float32).reshape(len(rows), views, len(PARAMETERS)),
            "images": np.array(embeds, np.float16).reshape(len(rows), views, teacher.embed_dim),
        },
        tuple(unreadable),
    )


def _with_texts(lessons: Lessons, source: SourceTexts, captions: Sequence[tuple[str, ...]], cache: Cache) -> Lessons:
    """The same with the embeddings of the captions of all readable pictures."""
    chosen = [captions[row] for row in lessons.rows]
    places: dict[str, int] = {}
    for texts in chosen:
        for text in texts:
            places.setdefault(text, len(places))
    distinct = list(places)
    source.tower.to(join_processes().device)

    def embed(texts: Sequence[str]) -> Shard:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncatedTextWarning)  # captions of the web are long; their start counts
            return Shard({"texts": source.encode(texts).astype(np.float16)})

    def read(number: int) -> Shard:
        start = number * SHARD_TEXTS
        shapes = {"texts": (None, lessons.images.shape[2])}
        return cache.shard(f"texts-{number:05d}", partial(embed, distinct[start : start + SHARD_TEXTS]), shapes)

    shards = _shards(read, -(-len(distinct) // SHARD_TEXTS), "the teacher reads")
    return dataclasses.replace(
        lessons,
        captions=tuple(np.array([places[text] for text in texts], np.int64) for texts in chosen),
        texts=np.concatenate([shard.tensors["texts"] for shard in shards]),
    )
