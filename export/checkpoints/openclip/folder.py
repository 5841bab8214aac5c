"""Reading models in OpenCLIP's layout, without open_clip.

A folder has ``open_clip_config.json`` ({"model_cfg": ..., "preprocess_cfg": ...}), the weights as
``open_clip_model.safetensors``, ``open_clip_pytorch_model.bin`` or ``model.safetensors`` in this order of preference,
for the text tower CLIP's vocabulary, and for the licence a model card ``README.md``.

Whether a model was trained with QuickGELU is what ``quick_gelu`` in ``model_cfg`` says, as for OpenCLIP itself. The
weights cannot contradict it: a configuration without the flag beside OpenAI's weights gives embeddings that are wrong,
and nothing in the folder shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.checkpoint import (
    Checkpoint,
    ModelSource,
    exp_logit_scale,
    space_id,
)
from clipedge.export.checkpoints.configs import ModelConfig, TextConfig
from clipedge.export.checkpoints.huggingface.siglip_tokenizer import read_openclip_siglip_tokenizer
from clipedge.export.checkpoints.layouts import ImageLayout
from clipedge.export.checkpoints.licenses import read_license
from clipedge.export.checkpoints.mobileclip.timm import MOBILECLIP_NAMES, mobileclip_layout
from clipedge.export.checkpoints.openclip.config import OpenClipModel, openclip_model
from clipedge.export.checkpoints.openclip.preprocessing import read_openclip_preprocessing
from clipedge.export.checkpoints.openclip.siglip import SIGLIP_NAMES, siglip_timm_layout
from clipedge.export.checkpoints.openclip.tokenizer import read_openclip_tokenizer
from clipedge.export.checkpoints.openclip.traced import traced_layout
from clipedge.export.checkpoints.openclip.weights import resnet_layout, text_layout, vit_layout
from clipedge.export.checkpoints.sections import read_json
from clipedge.export.checkpoints.tensors import (
    Stored,
    hash_files,
    open_pickle,
    open_safetensors,
    read_tensors,
)

__all__ = [
    "OPENCLIP_CONFIG",
    "OPENCLIP_WEIGHTS",
    "OpenClipFiles",
    "openclip_checkpoint",
    "openclip_image_layout",
    "read_openclip_folder",
]

OPENCLIP_CONFIG = "open_clip_config.json"
OPENCLIP_WEIGHTS = "open_clip_model.safetensors"
# In OpenCLIP's own order. The last of them may also be in the layout of transformers or timm, beside the others.
WEIGHTS_FILES = (OPENCLIP_WEIGHTS, "open_clip_pytorch_model.bin", "model.safetensors")

TimmReader: TypeAlias = Callable[[OpenClipModel, Stored], ImageLayout]

# ``tokenizer_kwargs`` of every SigLIP.
CANONICALIZE = {"clean": "canonicalize"}

# Patterns of timm's names of image towers, and who reads them.
TIMM_READERS: Mapping[str, TimmReader] = {MOBILECLIP_NAMES: mobileclip_layout, SIGLIP_NAMES: siglip_timm_layout}


def openclip_image_layout(model: OpenClipModel, stored: Stored) -> ImageLayout:
    """How a file with ``stored`` in it has the image tower that ``vision_cfg`` describes.

    Of timm's towers, those not known here are built by open_clip.
    """
    timm_name = model.vision.values.get("timm_model_name")
    if timm_name is None:
        is_resnet = isinstance(model.vision.values.get("layers"), (list, tuple))
        return resnet_layout(model) if is_resnet else vit_layout(model)
    for pattern, reader in TIMM_READERS.items():
        if re.fullmatch(pattern, str(timm_name)):
            return reader(model, stored)
    return traced_layout(model)


@dataclass(frozen=True, eq=False)
class OpenClipFiles:
    """Where a model in OpenCLIP's layout lies: what messages name, its weights, and where its tokenizer is."""

    place: Path
    weights: Sequence[Path]
    stored: Stored
    tokenizer: Path


def read_openclip_folder(folder: Path, source: ModelSource) -> Checkpoint:
    """Read a folder with ``open_clip_config.json``.

    Raises UnsupportedArchitectureError for a model that only OpenCLIP itself can build, CheckpointError when the folder
    is damaged or its preprocessing not supported.
    """
    path = folder / OPENCLIP_CONFIG
    document = read_json(path)
    if not isinstance(document.get("model_cfg"), dict):
        raise CheckpointError(f"{path} has no model_cfg; fetch the checkpoint again")
    model = openclip_model(path, document["model_cfg"])
    weights = find_openclip_weights(folder)
    stored = open_safetensors([weights]) if weights.suffix == ".safetensors" else open_pickle(weights)
    tokenizer = Path(source.tokenizer) if source.tokenizer else folder
    files = OpenClipFiles(folder, [weights], stored, tokenizer)
    return openclip_checkpoint(source, model, document.get("preprocess_cfg") or {}, files, read_license(folder))


def find_openclip_weights(folder: Path) -> Path:
    """The folder's weights, of several those that OpenCLIP would take. Raises CheckpointError when there are none."""
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} has no weights; expected {', '.join(WEIGHTS_FILES[:-1])} or {WEIGHTS_FILES[-1]}")


def openclip_checkpoint(
    source: ModelSource,
    model: OpenClipModel,
    preprocess_cfg: Mapping[str, Any],
    files: OpenClipFiles,
    license_name: str | None,
) -> Checkpoint:
    """The checkpoint of a model that ``model`` describes and ``files`` hold. Raises as ``read_openclip_folder``."""
    image = openclip_image_layout(model, files.stored)
    text = text_layout(model, "text." if "text.token_embedding.weight" in files.stored else "")
    has_bias = "logit_bias" in files.stored
    scalars = {name: _scalar_shape(files.stored, name) for name in ("logit_scale", *(["logit_bias"] * has_bias))}
    tensors = read_tensors(
        files.stored,
        {**image.shapes, **text.shapes, **scalars},
        files.place,
        lambda name: image.ignored(name) or text.ignored(name),
    )
    config = ModelConfig(image.config, text.config, model.embed_dim)
    image_weights, text_weights = image.canonical(tensors), text.canonical(tensors)
    return Checkpoint(
        name=files.place.stem if files.place.is_file() else files.place.name,
        source=source,
        image=config.image,
        text=config.text,
        embed_dim=config.embed_dim,
        image_weights=image_weights,
        text_weights=text_weights,
        logit_scale=exp_logit_scale(files.place, _scalar(tensors["logit_scale"])),
        logit_bias=_scalar(tensors["logit_bias"]) if has_bias else 0.0,
        activation="sigmoid" if has_bias else "softmax",
        preprocessing=read_openclip_preprocessing(model.whole.path, preprocess_cfg, config.image.image_size),
        license=license_name,
        source_sha256=hash_files(files.weights),
        space_id=space_id(config, image_weights, text_weights),
        read_tokenizer=lambda: _read_tokenizer(model, files.tokenizer, text.config),
    )


def _read_tokenizer(model: OpenClipModel, place: Path, config: TextConfig) -> bytes:
    """SigLIP's tokenizer or CLIP's; whatever cleans its texts otherwise is refused there."""
    if model.text.values.get("hf_tokenizer_name") and model.text.values.get("tokenizer_kwargs") == CANONICALIZE:
        return read_openclip_siglip_tokenizer(place, config.context_length, config.vocab_size)
    return read_openclip_tokenizer(model, place)


def _scalar_shape(stored: Stored, name: str) -> tuple[int, ...]:
    """One number, which some runs store as a list of one (``nonscalar_logit_scale``)."""
    return (1,) if name in stored and stored[name].shape == (1,) else ()


def _scalar(tensor: torch.Tensor) -> float:
    return float(tensor.reshape(()))
