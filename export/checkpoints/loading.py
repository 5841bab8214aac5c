"""load_checkpoint(): recognise what a user named, and hand it to who can read it.

A folder is told by its configuration (``open_clip_config.json``, or ``config.json`` and its ``model_type``), a file by
its ending. Every reader takes the path and the ``ModelSource`` and returns a ``Checkpoint``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.checkpoint import Checkpoint, ModelSource, UnsupportedArchitectureError
from clipedge.export.checkpoints.hf_config import read_model_type
from clipedge.export.checkpoints.huggingface import read_clip_folder
from clipedge.export.checkpoints.openclip import OPENCLIP_CONFIG, OPENCLIP_WEIGHTS, read_openclip_folder
from clipedge.export.checkpoints.weights_file import read_weights_file

__all__ = ["DEMO_CHECKPOINT", "load_checkpoint"]

DEMO_CHECKPOINT = Path(__file__).parent.parent / "demo"

Reader: TypeAlias = Callable[[Path, ModelSource], Checkpoint]

# By the ``model_type`` of config.json.
HUGGING_FACE_READERS: Mapping[str, Reader] = {"clip": read_clip_folder}

WEIGHTS_ENDINGS = (".pt", ".pth", ".bin", ".safetensors")


def load_checkpoint(model: str | os.PathLike[str] | ModelSource) -> Checkpoint:
    """Load a model: a folder in Hugging Face's or OpenCLIP's layout, or a file of weights.

    Raises CheckpointError when there is none, or it is damaged or of an architecture or preprocessing that is not
    supported.
    """
    source = model if isinstance(model, ModelSource) else ModelSource(os.fspath(model))
    path = _existing(source.model)
    return _reader(path)(path, source)


def _reader(path: Path) -> Reader:
    """Who reads this folder or file. Raises CheckpointError where nobody does."""
    if path.is_file():
        return read_weights_file
    if _is_openclip_folder(path):
        return read_openclip_folder
    model_type = read_model_type(path)
    reader = HUGGING_FACE_READERS.get(str(model_type))
    if reader is None:
        raise UnsupportedArchitectureError(
            f"{path / 'config.json'}: model_type is {model_type!r}; this version exports "
            f"{', '.join(map(repr, HUGGING_FACE_READERS))}"
        )
    return reader


def _is_openclip_folder(folder: Path) -> bool:
    """Whether OpenCLIP's configuration is there, and the weights it belongs to.

    Repositories on the hub often have a model twice, for transformers too, under ``config.json``.
    """
    if not (folder / OPENCLIP_CONFIG).is_file():
        return False
    if (folder / OPENCLIP_WEIGHTS).is_file() or not (folder / "config.json").is_file():
        return True
    return read_model_type(folder) not in HUGGING_FACE_READERS


def _existing(model: str) -> Path:
    path = Path(model)
    if path.is_dir() or (path.is_file() and path.suffix in WEIGHTS_ENDINGS):
        return path.resolve()
    if path.exists():
        raise CheckpointError(
            f"{path} is no folder and no file of weights; expected the folder of a model, or a file that ends in "
            f"{', '.join(WEIGHTS_ENDINGS)}"
        )
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model):
        raise CheckpointError(
            f"there is no folder {path}; if {path} is a model on a hub: this version downloads none, "
            "so fetch it and pass the local folder"
        )
    raise CheckpointError(f"there is no folder {path}; expected the path of a Hugging Face CLIP folder")
