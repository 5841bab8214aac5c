"""Reading a Hugging Face CLIP folder, without transformers.

Expected in the folder: ``config.json``, the weights (``clipedge.export.checkpoints.huggingface.weights``),
``preprocessor_config.json``, for the text tower ``tokenizer.json``, and for the licence a model card ``README.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clipedge.export.checkpoints.checkpoint import Checkpoint, ModelSource, exp_logit_scale, space_id
from clipedge.export.checkpoints.configs import TextConfig, VitConfig
from clipedge.export.checkpoints.huggingface.config import read_model_config
from clipedge.export.checkpoints.huggingface.preprocessing import read_preprocessing
from clipedge.export.checkpoints.huggingface.weights import open_folder_weights
from clipedge.export.checkpoints.licenses import read_license
from clipedge.export.checkpoints.tensors import Shape, hash_files, read_tensors
from clipedge.export.checkpoints.tokenizer import load_tokenizer_json, read_pad_token
from clipedge.text import bake_tokenizer

__all__ = ["Expected", "affine", "encoder_blocks", "image_tensors", "read_clip_folder", "text_tensors"]

# Older transformers stored these index vectors (0, 1, 2, ...) as if they were weights.
IGNORED_TENSORS = frozenset({"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"})


@dataclass(frozen=True)
class Expected:
    """The Hugging Face name and shape of a canonical tensor."""

    source: str
    shape: Shape


def read_clip_folder(folder: Path, source: ModelSource) -> Checkpoint:
    """Read a folder of ``model_type`` "clip".

    Dimensions, activation, epsilon and the end-of-text rule are read from the checkpoint. Raises CheckpointError
    when the folder is damaged, or of an architecture or preprocessing that is not supported.
    """
    config = read_model_config(folder)
    preprocessing = read_preprocessing(folder, config.image.image_size)
    weights = open_folder_weights(folder, source)
    image = image_tensors(config.image, config.embed_dim)
    text = text_tensors(config.text, config.embed_dim)
    shapes = {expected.source: expected.shape for expected in (*image.values(), *text.values())}
    tensors = read_tensors(weights.stored, {**shapes, "logit_scale": ()}, folder, IGNORED_TENSORS.__contains__)
    image_weights = {name: tensors[expected.source] for name, expected in image.items()}
    text_weights = {name: tensors[expected.source] for name, expected in text.items()}
    tokenizer = Path(source.tokenizer) if source.tokenizer else folder
    return Checkpoint(
        name=folder.name,
        source=source,
        image=config.image,
        text=config.text,
        embed_dim=config.embed_dim,
        image_weights=image_weights,
        text_weights=text_weights,
        logit_scale=exp_logit_scale(folder, float(tensors["logit_scale"])),
        logit_bias=0.0,
        activation="softmax",
        preprocessing=preprocessing,
        license=read_license(folder),
        source_sha256=hash_files(weights.files),
        space_id=space_id(config, image_weights, text_weights),
        read_tokenizer=lambda: bake_tokenizer(
            load_tokenizer_json(tokenizer), config.text.context_length, read_pad_token(tokenizer)
        ),
    )


def image_tensors(config: VitConfig, embed_dim: int) -> dict[str, Expected]:
    width, patch = config.width, config.patch_size
    return {
        "embedding.patch.weight": Expected("vision_model.embeddings.patch_embedding.weight", (width, 3, patch, patch)),
        "embedding.class_token": Expected("vision_model.embeddings.class_embedding", (width,)),
        "embedding.position": Expected("vision_model.embeddings.position_embedding.weight", (config.tokens, width)),
        **affine("embedding.norm", "vision_model.pre_layrnorm", (width,)),  # sic
        **encoder_blocks("vision_model", config),
        **affine("norm_post", "vision_model.post_layernorm", (width,)),
        "projection.weight": Expected("visual_projection.weight", (embed_dim, width)),
    }


def text_tensors(config: TextConfig, embed_dim: int) -> dict[str, Expected]:
    width = config.width
    return {
        "embedding.token": Expected("text_model.embeddings.token_embedding.weight", (config.vocab_size, width)),
        "embedding.position": Expected(
            "text_model.embeddings.position_embedding.weight", (config.context_length, width)
        ),
        **encoder_blocks("text_model", config),
        **affine("norm_post", "text_model.final_layer_norm", (width,)),
        "projection.weight": Expected("text_projection.weight", (embed_dim, width)),
    }


def encoder_blocks(tower: str, config: VitConfig | TextConfig) -> dict[str, Expected]:
    width, mlp_width = config.width, config.mlp_width
    parts: tuple[tuple[str, str, Shape], ...] = (
        ("norm1", "layer_norm1", (width,)),
        ("attn.query", "self_attn.q_proj", (width, width)),
        ("attn.key", "self_attn.k_proj", (width, width)),
        ("attn.value", "self_attn.v_proj", (width, width)),
        ("attn.out", "self_attn.out_proj", (width, width)),
        ("norm2", "layer_norm2", (width,)),
        ("fc1", "mlp.fc1", (mlp_width, width)),
        ("fc2", "mlp.fc2", (width, mlp_width)),
    )
    tensors: dict[str, Expected] = {}
    for index in range(config.layers):
        for name, source, shape in parts:
            tensors |= affine(f"blocks.{index}.{name}", f"{tower}.encoder.layers.{index}.{source}", shape)
    return tensors


def affine(name: str, source: str, shape: Shape) -> dict[str, Expected]:
    """A weight and the bias that goes with its first dimension."""
    return {
        f"{name}.weight": Expected(f"{source}.weight", shape),
        f"{name}.bias": Expected(f"{source}.bias", shape[:1]),
    }
