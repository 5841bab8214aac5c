"""load_checkpoint(): recognise what a user named, and hand it to who can read it.

A folder is told by its configuration (``open_clip_config.json``, or ``config.json`` and its ``model_type``), a file by
its ending. Every reader takes the path and the ``ModelSource`` and returns a ``Checkpoint``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints.checkpoint import Checkpoint, ModelSource, UnsupportedArchitectureError
from clipedge.export.checkpoints.huggingface.clip import read_clip_folder
from clipedge.export.checkpoints.huggingface.config import read_model_type
from clipedge.export.checkpoints.huggingface.siglip import read_siglip2_folder, read_siglip_folder
from clipedge.export.checkpoints.huggingface.traced import read_with_transformers
from clipedge.export.checkpoints.licenses import find_license, read_license
from clipedge.export.checkpoints.locating import locate
from clipedge.export.checkpoints.openclip.folder import OPENCLIP_CONFIG, OPENCLIP_WEIGHTS, read_openclip_folder
from clipedge.export.checkpoints.weights_file import read_weights_file

__all__ = ["DEMO_CHECKPOINT", "load_checkpoint", "named_source"]

DEMO_CHECKPOINT = Path(__file__).parent.parent / "demo"

Reader: TypeAlias = Callable[[Path, ModelSource], Checkpoint]

# By the ``model_type`` of config.json.
HUGGING_FACE_READERS: Mapping[str, Reader] = {
    "clip": read_clip_folder,
    "siglip": read_siglip_folder,
    "siglip2": read_siglip2_folder,
}


def named_source(
    model: str | os.PathLike[str] | None,
    arch: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    revision: str | None = None,
) -> ModelSource:
    """What a user named; no model is the demonstration checkpoint."""
    named = os.fspath(DEMO_CHECKPOINT if model is None else model)
    return ModelSource(named, arch, None if tokenizer is None else os.fspath(tokenizer), revision)


def load_checkpoint(model: str | os.PathLike[str] | ModelSource) -> Checkpoint:
    """Load a model: a folder in Hugging Face's or OpenCLIP's layout, a file of weights, or such a model on a hub
    ("owner/name", "owner/name@revision"); or an adapter that was trained on one.

    Raises CheckpointError when there is none, or it is damaged or of an architecture or preprocessing that is not
    supported, UsageError for an ``arch`` that it has no use for.
    """
    found = locate(model if isinstance(model, ModelSource) else ModelSource(os.fspath(model)))
    layout, reader = _recognise(found.path)
    if found.source.arch and found.path.is_dir():
        raise UsageError(
            f"{found.path} is a {layout}, which says its architecture itself; --arch {found.source.arch} is for a file "
            "of weights: leave it out, or name the file"
        )
    if found.source.adapter and reader not in HUGGING_FACE_READERS.values():
        raise CheckpointError(
            f"{found.source.adapter} is an adapter for {found.path}, a {layout}; expected one for a "
            "Hugging Face folder. Merge it where it was trained"
        )
    checkpoint = reader(found.path, found.source)
    return dataclasses.replace(
        checkpoint,
        name=found.name,
        revision=found.revision,
        license=_license(checkpoint.license, found.source.adapter),
        layout=f"{layout}, an adapter merged into it" if found.source.adapter else layout,
    )


def _license(license: str | None, adapter: str | None) -> str | None:
    """That of the model, or that of the adapter where it forbids more."""
    own = read_license(Path(adapter)) if adapter else None
    return own if license is None or find_license(own).restricts else license


def _recognise(path: Path) -> tuple[str, Reader]:
    """What this folder or file is, and who reads it. Raises CheckpointError where nobody does."""
    if path.is_file():
        return "file of weights", read_weights_file
    if _is_openclip_folder(path):
        return "OpenCLIP folder", read_openclip_folder
    model_type = read_model_type(path)
    if model_type is None:
        raise UnsupportedArchitectureError(
            f"{path / 'config.json'} names no model_type; expected {', '.join(HUGGING_FACE_READERS)}, or another CLIP "
            "that transformers knows"
        )
    reader = HUGGING_FACE_READERS.get(str(model_type), read_with_transformers)
    return f"Hugging Face folder ({model_type})", reader


def _is_openclip_folder(folder: Path) -> bool:
    """Whether OpenCLIP's configuration is there, and the weights it belongs to.

    Repositories on the hub often have a model twice, for transformers too, under ``config.json``.
    """
    if not (folder / OPENCLIP_CONFIG).is_file():
        return False
    if (folder / OPENCLIP_WEIGHTS).is_file() or not (folder / "config.json").is_file():
        return True
    return read_model_type(folder) not in HUGGING_FACE_READERS
