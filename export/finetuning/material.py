"""What a model is fine-tuned on: readable pictures, and for each the texts that it may be shown with.

Pairs: a list with captions (.csv, .tsv, .jsonl), a webdataset with KEY.txt, a folder with KEY.txt beside KEY.jpg, or
scenes. Classes: a folder with one sub-folder for each, a list or webdataset with classes; their texts are prompts. A
source with both is taken for pairs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from clipedge.calibration.data import SCENES, PictureItem, Pictures, choose, open_item, read_pictures, scene_pictures
from clipedge.calibration.tars import MAX_CAPTION_BYTES
from clipedge.errors import ImageError, UsageError
from clipedge.export.training.data import (
    VALIDATION_SCENES,
    check_captions,
    classes_of,
    default_templates,
    warn_of_unreadable,
)
from clipedge.parallel import cores, parallel_map
from clipedge.text import Tokenizer, TruncatedTextWarning, fill_template

__all__ = ["Material", "exam_pictures", "gather", "with_sidecars"]

LEAST_CLASSES = 2
CHUNK = 256  # pictures that are looked at between two moves of the progress bar


@dataclass(frozen=True, eq=False)
class Material:
    """M readable pictures. ``groups`` (M,) int64: what a picture shares its text with, its class or only itself;
    ``texts`` has for each group indices into ``tokens`` (T, context length) int64, and ``unreadable`` a line for each
    picture that was left out. ``labels`` are the classes' names, empty for pairs."""

    pictures: Pictures
    unreadable: tuple[str, ...]
    groups: npt.NDArray[np.int64]
    texts: tuple[npt.NDArray[np.int64], ...]
    tokens: npt.NDArray[np.int64]
    labels: tuple[str, ...] = ()

    @property
    def has_classes(self) -> bool:
        return bool(self.labels)


def gather(
    pictures: Pictures,
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
    tokenizer: Tokenizer,
) -> Material:
    """Open every picture once, leave out what cannot be read, and tokenize the texts.

    Warns of pictures that cannot be read. Raises ImageError if none can, UsageError for pictures without captions and
    classes, with captions for some, of one class only, or of other classes than ``labels``.
    """
    if pictures.captions is None and pictures.labels is None:
        check_captions(pictures, "sort the pictures into one sub-folder for each class")
    if pictures.captions is not None:
        check_captions(pictures, "leave those pictures out")
        pictures, unreadable = _readable(pictures)
        assert pictures.captions is not None
        distinct = list(dict.fromkeys(text for texts in pictures.captions for text in texts))
        places = {text: place for place, text in enumerate(distinct)}
        chosen = tuple(np.array([places[text] for text in texts], np.int64) for texts in pictures.captions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncatedTextWarning)  # captions of the web are long; their start counts
            return Material(pictures, unreadable, np.arange(len(pictures)), chosen, tokenizer(distinct))
    names, truth = classes_of(pictures, labels)
    assert truth is not None
    if len(names) < LEAST_CLASSES:
        raise UsageError(
            f"{pictures.source} has one class, {names[0]}, and a picture's class is told from others; add a sub-folder "
            "with pictures of another"
        )
    pictures, unreadable = _readable(replace(pictures, labels=truth, class_names=names))
    assert pictures.labels is not None
    used = templates or default_templates(names)
    prompts = [fill_template(template, name) for name in names for template in used]
    of_class = np.arange(len(prompts)).reshape(len(names), -1)
    return Material(pictures, unreadable, pictures.labels, tuple(of_class), tokenizer(prompts), names)


def exam_pictures(source: str | os.PathLike[str], size: int) -> Pictures:
    """The pictures of a named validation set; "scenes" are labelled ones of the split "validation", ``size`` square."""
    if os.fspath(source) == SCENES:
        return scene_pictures("validation", VALIDATION_SCENES, size)
    return with_sidecars(read_pictures(source, captions=True))


def with_sidecars(pictures: Pictures) -> Pictures:
    """The same with captions from KEY.txt beside KEY.jpg, if there is such a file beside any picture of a folder.

    Raises UsageError for a picture without one, and for one that is empty, too long or no UTF-8.
    """
    paths = [item for item in pictures.items if isinstance(item, Path)]
    texts = [path.with_suffix(".txt") for path in paths]
    there = [text.is_file() for text in texts]
    if pictures.captions is not None or len(paths) < len(pictures) or not any(there):
        return pictures
    if not all(there):
        bare = there.index(False)
        raise UsageError(
            f"{pictures.source}: {len(there) - sum(there)} of {len(there)} pictures have no caption beside them, the "
            f"first of them {paths[bare]}; expected {texts[bare].name}, or no such file for any"
        )
    return replace(pictures, captions=[(_caption(text),) for text in texts])


def _caption(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CAPTION_BYTES + 1)
        text = " ".join(data.decode("utf-8-sig").split())
    except UnicodeDecodeError:
        raise UsageError(f"{path} should hold a caption as UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if not text or len(data) > MAX_CAPTION_BYTES:
        raise UsageError(f"{path} should hold a caption in 1 to {MAX_CAPTION_BYTES} bytes; write one, or remove both")
    return text


def _readable(pictures: Pictures) -> tuple[Pictures, tuple[str, ...]]:
    """The pictures that can be read, and a line for each other one."""

    def look(item: PictureItem) -> str:
        try:
            open_item(item)
        except ImageError as error:
            return str(error)
        return ""

    faults: list[str] = []
    with tqdm(desc="looking at the pictures", total=len(pictures), unit="picture", disable=None, leave=False) as bar:
        for start in range(0, len(pictures), CHUNK):
            faults += parallel_map(look, pictures.items[start : start + CHUNK], cores())
            bar.update(len(faults) - bar.n)
    unreadable = tuple(filter(None, faults))
    if len(unreadable) == len(pictures):
        raise ImageError(f"none of the {len(pictures)} pictures of {pictures.source} can be read: {unreadable[0]}")
    warn_of_unreadable(unreadable, len(pictures))
    return choose(pictures, np.flatnonzero([not fault for fault in faults])), unreadable
