"""Reading a folder of transformers by transformers itself: for the families that ClipEdge has no towers for.

What it supports stands in ``clipedge.export.libraries``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.checkpoint import (
    Checkpoint,
    ModelSource,
    UnsupportedArchitectureError,
    exp_logit_scale,
    space_id,
)
from clipedge.export.checkpoints.configs import ModelConfig, TracedImageConfig, TracedTextConfig
from clipedge.export.checkpoints.huggingface.preprocessing import CLIP_PROCESSOR, preprocessing_of
from clipedge.export.checkpoints.licenses import read_license
from clipedge.export.checkpoints.sections import Section, read_json
from clipedge.export.checkpoints.tensors import find_weight_files, hash_files
from clipedge.export.libraries.transformers import (
    pretrained,
    transformers_image_tower,
    transformers_text_tower,
)
from clipedge.manifest import Preprocessing
from clipedge.text import bake_tokenizer

__all__ = ["read_with_transformers"]

# What config.json says beside the shape of the model.
BOOKKEEPING = frozenset({"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"})

# A text tower that masks its padding takes texts of any length up to its table of positions, often 512. All CLIP
# models are trained on captions of this many tokens at most, and a tower costs as much as it has tokens.
MAX_CONTEXT = 77


def read_with_transformers(folder: Path, source: ModelSource) -> Checkpoint:
    """Read a folder of any ``model_type`` that has image and text features in transformers.

    Raises UnsupportedArchitectureError for a model that is no CLIP, CheckpointError for a damaged folder,
    MissingDependencyError without transformers.
    """
    files = find_weight_files(folder)
    settings = {key: value for key, value in read_json(folder / "config.json").items() if key not in BOOKKEEPING}
    weights = _read_weights(folder)
    tokenizer = _read_tokenizer(Path(source.tokenizer) if source.tokenizer else folder)
    image, text, embed_dim = _configs(folder, settings, tokenizer)
    image_weights = _part(folder, weights, transformers_image_tower(image))
    text_weights = _part(folder, weights, transformers_text_tower(text))
    bias = weights.get("logit_bias")
    return Checkpoint(
        name=folder.name,
        source=source,
        image=image,
        text=text,
        embed_dim=embed_dim,
        image_weights=image_weights,
        text_weights=text_weights,
        logit_scale=exp_logit_scale(folder, float(weights["logit_scale"].reshape(()))),
        logit_bias=0.0 if bias is None else float(bias.reshape(())),
        activation="softmax" if bias is None else "sigmoid",
        preprocessing=_read_preprocessing(folder, image.image_size),
        license=read_license(folder),
        source_sha256=hash_files(files),
        space_id=space_id(ModelConfig(image, text, embed_dim), image_weights, text_weights),
        read_tokenizer=lambda: bake_tokenizer(
            tokenizer.backend_tokenizer.to_str().encode(), text.context_length, tokenizer.pad_token
        ),
    )


def _read_weights(folder: Path) -> Mapping[str, torch.Tensor]:
    """All tensors by the names of transformers' modules, which need not be those in the file."""
    model, found = pretrained(folder, "AutoModel", dtype=torch.float32, use_safetensors=True, output_loading_info=True)
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise UnsupportedArchitectureError(
            f"{folder / 'config.json'}: transformers makes a {type(model).__name__} of it, which is no CLIP; expected "
            "a model with get_image_features and get_text_features"
        )
    unexpected = [name for name in found["unexpected_keys"] if not name.endswith("position_ids")]
    for names, problem in ((found["missing_keys"], "lack"), (unexpected, "have beyond those of the configuration")):
        if names:
            raise CheckpointError(
                f"{folder}: the weights {problem} {', '.join(sorted(names)[:3])} ({len(names)} in all); "
                "configuration and weights belong to different models, or a shard is missing"
            )
    weights: dict[str, torch.Tensor] = model.state_dict()
    if "logit_scale" not in weights:
        raise UnsupportedArchitectureError(
            f"{folder}: the weights have no logit_scale, so how cosines become probabilities in a "
            f"{type(model).__name__} is unknown; ClipEdge does not export this architecture"
        )
    return weights


def _read_tokenizer(place: Path) -> Any:
    tokenizer = pretrained(place, "AutoTokenizer")
    if not getattr(tokenizer, "is_fast", False) or tokenizer.pad_token is None:
        raise CheckpointError(
            f"{place}: expected a tokenizer of the tokenizers library with a padding token, found "
            f"{type(tokenizer).__name__}; name another with --tokenizer"
        )
    return tokenizer


def _configs(
    folder: Path, settings: Mapping[str, Any], tokenizer: Any
) -> tuple[TracedImageConfig, TracedTextConfig, int]:
    """Of both towers, and the embedding dimension."""
    config = pretrained(folder, "AutoConfig")
    path, written = folder / "config.json", json.dumps(settings, sort_keys=True)
    vision, text = (Section(path, name, getattr(config, name).to_dict()) for name in ("vision_config", "text_config"))
    positions = text.integer("max_position_embeddings", MAX_CONTEXT)
    return (
        TracedImageConfig("transformers", config.model_type, written, vision.integer("image_size", 0)),
        TracedTextConfig(
            config.model_type,
            written,
            min(MAX_CONTEXT, tokenizer.model_max_length, positions),
            pad_token_id=tokenizer.pad_token_id,
            end_token_id=tokenizer("")["input_ids"][-1],
        ),
        Section(path, "", config.to_dict()).integer("projection_dim", 0),
    )


def _read_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """Each family has defaults of its own for what the file leaves out; transformers fills them in."""
    values = json.loads(pretrained(folder, "AutoImageProcessor").to_json_string())
    values["image_processor_type"] = CLIP_PROCESSOR  # whose defaults are no longer asked for
    return preprocessing_of(folder / "preprocessor_config.json", values, image_size)


def _part(folder: Path, weights: Mapping[str, torch.Tensor], tower: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of one tower, by its parameters' names."""
    part = {name: weights[name.removeprefix("model.")] for name in tower.state_dict()}
    for name, tensor in part.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{folder}: the tensor {name} contains NaN or infinity; use sound weights")
    return part
