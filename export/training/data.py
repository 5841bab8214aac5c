"""What a model is trained and validated on: read, checked and hashed before anything is computed."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.bundle import sha256_of
from clipedge.calibration import scenes
from clipedge.calibration.data import SCENES, PictureItem, Pictures, choose, read_pictures, scene_pictures
from clipedge.calibration.tars import TarPicture
from clipedge.errors import ImageError, UsageError
from clipedge.export.demo.pool import draw_pool
from clipedge.export.material import truth_of
from clipedge.parallel import cores, parallel_map
from clipedge.prompts.bank import check_labels
from clipedge.text import DEFAULT_TEMPLATES
from clipedge.whole import whole_file

__all__ = [
    "check_captions",
    "classes_of",
    "default_templates",
    "hold_out",
    "pictures_sha256",
    "scene_count",
    "training_pictures",
    "warn_of_unreadable",
]

TRAINING_SCENES = 20_000
VALIDATION_SCENES = 600
HELD_OUT_SHARE = 10  # every tenth picture validates ...
MOST_HELD_OUT = 1000  # ... and no more than so many: they stay in memory
LEAST_HELD_OUT = 2
NAMED = 3  # unreadable pictures that a warning names


def scene_count(source: str | os.PathLike[str]) -> int | None:
    """How many scenes "scenes" or "scenes:COUNT" asks for; None for any other source."""
    found = re.fullmatch(rf"{SCENES}(?::(\d{{1,9}}))?", os.fspath(source))
    if found is None:
        return None
    count = TRAINING_SCENES if found[1] is None else int(found[1])
    if not count:
        raise UsageError(f"{source}: expected one scene or more, such as {SCENES}:{TRAINING_SCENES}")
    return count


def training_pictures(source: str | os.PathLike[str], scratch: Path, size: int) -> Pictures:
    """The pictures of a source, with their captions where it has any: what ``read_pictures`` takes, or scenes.

    Scenes are drawn once, ``size`` x ``size``, to a file in the folder ``scratch``. Raises UsageError for a source
    that does not exist, cannot be read or holds no picture.
    """
    count = scene_count(source)
    return read_pictures(source, captions=True) if count is None else _scenes(count, scratch, size)


def _scenes(count: int, scratch: Path, size: int) -> Pictures:
    """Captioned scenes of the split "train", their pixels in a file that is mapped to memory."""
    path = scratch / f"scenes-{count}-{size}.npy"
    if not path.is_file():
        scratch.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as staging:
            draw_pool(staging, count, size)
    try:
        pictures = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UsageError(f"{path} is damaged ({error}); delete it, and it is drawn again") from None
    if pictures.shape != (count, size, size, 3) or pictures.dtype != np.uint8:
        raise UsageError(f"{path} holds something else than {count} scenes; delete it, and it is drawn again")
    captions = [scenes.sample_scene("train", index).captions for index in range(count)]
    return Pictures(f"{SCENES} (train)", list(pictures), captions=captions)


def hold_out(
    pictures: Pictures, source: str | os.PathLike[str], validation: str | os.PathLike[str] | None, size: int
) -> tuple[Pictures, Pictures]:
    """(training, validation): ``validation`` where one is named, new scenes for scenes, else a tenth of the pictures.

    Raises UsageError for too few pictures to hold any out, and for a validation set that cannot be read.
    """
    if validation is not None:
        return pictures, read_pictures(validation)
    if scene_count(source) is not None:
        return pictures, scene_pictures("validation", VALIDATION_SCENES, size)
    if len(pictures) < LEAST_HELD_OUT * HELD_OUT_SHARE:
        raise UsageError(
            f"{pictures.source} holds {len(pictures)} pictures, of which every tenth validates; expected "
            f"{LEAST_HELD_OUT * HELD_OUT_SHARE} or more, or a --validation folder"
        )
    stride = max(HELD_OUT_SHARE, -(-len(pictures) // MOST_HELD_OUT))
    validates = np.arange(len(pictures)) % stride == stride - 1
    return choose(pictures, np.flatnonzero(~validates)), choose(pictures, np.flatnonzero(validates))


def check_captions(pictures: Pictures, instead: str = "use losses that need none: --losses images") -> None:
    """Raises UsageError unless every picture has a caption; ``instead`` is what else can be done about it."""
    advice = f"add captions (CSV, JSON Lines, KEY.txt in a tar), or {instead}"
    if pictures.captions is None:
        raise UsageError(f"{pictures.source} has no captions, and these losses compare pictures with them; {advice}")
    bare = [item for item, captions in zip(pictures.items, pictures.captions, strict=True) if not captions]
    if bare:
        raise UsageError(
            f"{pictures.source}: {len(bare)} of {len(pictures)} pictures have no caption, the first of them "
            f"{_name(bare[0])}; {advice}"
        )


def classes_of(
    pictures: Pictures, labels: Sequence[str] | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64] | None]:
    """The labels, and for each picture the index of its own; nothing and None where no class is known.

    Raises UsageError for labels that are not those of the pictures.
    """
    if labels is None:
        return (pictures.class_names, pictures.labels) if pictures.labels is not None else ((), None)
    check_labels(labels)
    truth = truth_of(pictures, labels)
    if truth is None:
        raise UsageError(
            f"the labels are not the classes of {pictures.source} (expected {', '.join(pictures.class_names[:5])} "
            f"or numbers that count them, found {', '.join(labels[:5])}); name each class, or leave --labels out"
        )
    return tuple(labels), truth


def default_templates(names: Sequence[str]) -> tuple[str, ...]:
    """The templates for these classes where none are given."""
    return scenes.TEMPLATES if tuple(names) == scenes.CLASS_NAMES else DEFAULT_TEMPLATES


def warn_of_unreadable(unreadable: Sequence[str], count: int) -> None:
    """Name and count the pictures, of so many, that could not be read; the result's file names all."""
    if unreadable:
        more = f"; and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
        warnings.warn(
            f"{len(unreadable)} of {count} pictures cannot be read and are left out: "
            f"{'; '.join(unreadable[:NAMED])}{more}",
            stacklevel=3,
        )


def pictures_sha256(pictures: Pictures) -> str:
    """SHA-256 in hex over names, bytes, captions and classes: what names a data set whatever the folder is called.

    Every byte is read once. What cannot be read counts as such; the teacher's pass names it.
    """
    digest = hashlib.sha256()
    digests = parallel_map(_item_digest, pictures.items, cores())
    for row, (item, content) in enumerate(zip(pictures.items, digests, strict=True)):
        captions = () if pictures.captions is None else pictures.captions[row]
        label = "" if pictures.labels is None else pictures.class_names[pictures.labels[row]]
        for text in (_file_name(item), label, *captions):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        digest.update(content + b"\n")
    return digest.hexdigest()


def _item_digest(item: PictureItem) -> bytes:
    try:
        if isinstance(item, TarPicture):
            return hashlib.sha256(item.read()).digest()
        if isinstance(item, np.ndarray):
            return hashlib.sha256(np.ascontiguousarray(item).data).digest()
        assert isinstance(item, (str, os.PathLike)), "no other kinds are in a set that was read"
        return bytes.fromhex(sha256_of(Path(item)))
    except (OSError, ImageError):
        return b"unreadable"


def _file_name(item: PictureItem) -> str:
    if isinstance(item, TarPicture):
        return item.name
    return Path(item).name if isinstance(item, (str, os.PathLike)) else ""


def _name(item: PictureItem) -> str:
    return "a picture in memory" if isinstance(item, np.ndarray) else str(item)
