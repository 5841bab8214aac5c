"""Reading a single file of weights: OpenAI's ``.pt``, a state dict in OpenCLIP's layout, or one of Apple's.

Such a file says neither how pictures were prepared nor how texts are tokenized. MobileCLIP's are prepared as their
authors do (``clipedge.export.checkpoints.mobileclip.apple``); for all others both are taken as OpenAI has them
(bicubic, shorter side to the model's size, centre; CLIP's vocabulary), which is right for OpenAI's models and most of
OpenCLIP's, but not for all: LAION-2B's ViT-L-14, for one, was trained with a mean and deviation of 0.5. Where OpenCLIP
has a folder for a model, its configuration is the safer source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints.architectures import (
    QUICK_GELU,
    architecture_named,
    architectures_like,
    preprocessing_named,
)
from clipedge.export.checkpoints.checkpoint import Checkpoint, ModelSource
from clipedge.export.checkpoints.licenses import read_license
from clipedge.export.checkpoints.mobileclip.apple import is_apple, read_apple_file
from clipedge.export.checkpoints.openclip.config import OpenClipModel, openclip_model
from clipedge.export.checkpoints.openclip.folder import OpenClipFiles, openclip_checkpoint
from clipedge.export.checkpoints.openclip.openai import MARKS, infer_model, is_openai
from clipedge.export.checkpoints.tensors import Stored, open_pickle, open_safetensors

__all__ = ["read_weights_file"]


def read_weights_file(path: Path, source: ModelSource) -> Checkpoint:
    """Read OpenAI's ``.pt``, or a state dict (``.pt``, ``.pth``, ``.bin``, ``.safetensors``) of ``source.arch``.

    The tokenizer is ``source.tokenizer``, else looked for beside the file; the licence is that of a model card there.
    Raises UsageError for an unknown ``arch``, CheckpointError where the file is damaged, does not belong to ``arch``,
    or leaves open what it is.
    """
    stored = open_safetensors([path]) if path.suffix == ".safetensors" else open_pickle(path)
    if is_apple(stored):
        return read_apple_file(path, source, stored)
    model = _model(path, stored, source.arch)
    weights = {name: tensor for name, tensor in stored.items() if name not in MARKS}
    tokenizer = Path(source.tokenizer) if source.tokenizer else path.parent
    files = OpenClipFiles(path, [path], weights, tokenizer)
    preprocess_cfg = preprocessing_named(source.arch or "")
    return openclip_checkpoint(source, model, preprocess_cfg, files, read_license(path.parent))


def _model(path: Path, stored: Stored, arch: str | None) -> OpenClipModel:
    if arch is not None:
        document = architecture_named(arch)
        if is_openai(stored) and not document["quick_gelu"]:
            raise UsageError(
                f"{path} is OpenAI's, whose models have QuickGELU; --arch {arch} has GELU and would give other "
                f"embeddings. Pass --arch {arch}{QUICK_GELU}, or leave --arch out"
            )
        return openclip_model(path, document, f"--arch {arch}")
    document = infer_model(path, stored)
    if not is_openai(stored):
        raise _unknown_activation(path, document)
    return openclip_model(path, {**document, "quick_gelu": True}, "the model inferred from the tensors")


def _unknown_activation(path: Path, document: dict[str, Any]) -> CheckpointError:
    names = architectures_like(document)
    choices = [f"--arch {name}{ending}" for name in names for ending in (QUICK_GELU, "")]
    return CheckpointError(
        f"{path}: the tensors do not tell which activation the model was trained with; OpenAI's models and their "
        "fine-tunes have QuickGELU, those that OpenCLIP trained mostly GELU. Pass "
        f"{' or '.join(choices) or '--arch with the name of its architecture'}"
    )
