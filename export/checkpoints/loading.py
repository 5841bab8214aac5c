"""load_checkpoint(): recognise what a user named, and hand it to who can read it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.checkpoint import Checkpoint, ModelSource
from clipedge.export.checkpoints.huggingface import read_clip_folder

__all__ = ["DEMO_CHECKPOINT", "load_checkpoint"]

DEMO_CHECKPOINT = Path(__file__).parent.parent / "demo"


def load_checkpoint(model: str | os.PathLike[str] | ModelSource) -> Checkpoint:
    """Load a model: a folder in Hugging Face's layout (``model_type`` "clip", weights in safetensors).

    Raises CheckpointError when there is none, or it is damaged or of an architecture or preprocessing that is not
    supported.
    """
    source = model if isinstance(model, ModelSource) else ModelSource(os.fspath(model))
    return read_clip_folder(_existing(source.model), source)


def _existing(model: str) -> Path:
    path = Path(model)
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise CheckpointError(f"{path} is a file; expected a Hugging Face CLIP folder (config.json, model.safetensors)")
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model):
        raise CheckpointError(
            f"there is no folder {path}; if {path} is a model on a hub: this version downloads none, "
            "so fetch it and pass the local folder"
        )
    raise CheckpointError(f"there is no folder {path}; expected the path of a Hugging Face CLIP folder")
