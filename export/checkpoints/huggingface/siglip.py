"""Reading a Hugging Face SigLIP folder (Zhai et al. 2023, arXiv 2303.15343), without transformers.

SigLIP 2 (Tschannen et al. 2025, arXiv 2502.14786) with a fixed resolution is the same model with another tokenizer.
Expected in the folder is what CLIP's has (``clipedge.export.checkpoints.huggingface.clip``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from clipedge.export.checkpoints.checkpoint import (
    Checkpoint,
    ModelSource,
    UnsupportedArchitectureError,
    exp_logit_scale,
    space_id,
)
from clipedge.export.checkpoints.configs import TextConfig, VitConfig
from clipedge.export.checkpoints.huggingface.clip import IGNORED_TENSORS, Expected, affine, encoder_blocks
from clipedge.export.checkpoints.huggingface.config import read_siglip_config
from clipedge.export.checkpoints.huggingface.preprocessing import SIGLIP_PROCESSOR, read_preprocessing
from clipedge.export.checkpoints.huggingface.siglip_tokenizer import read_siglip_tokenizer
from clipedge.export.checkpoints.huggingface.weights import open_folder_weights
from clipedge.export.checkpoints.licenses import read_license
from clipedge.export.checkpoints.tensors import Shape, hash_files, read_tensors

__all__ = ["add_bias", "project_query", "read_siglip2_folder", "read_siglip_folder"]

PATCH, PATCH_BIAS = "vision_model.embeddings.patch_embedding.weight", "vision_model.embeddings.patch_embedding.bias"
HEAD = "vision_model.head"

Tensors = Mapping[str, torch.Tensor]


def read_siglip_folder(folder: Path, source: ModelSource) -> Checkpoint:
    """Read a folder of ``model_type`` "siglip".

    Raises CheckpointError when the folder is damaged, or of an architecture or preprocessing that is not supported.
    """
    config = read_siglip_config(folder)
    preprocessing = read_preprocessing(folder, config.image.image_size, SIGLIP_PROCESSOR)
    weights = open_folder_weights(folder, source)
    image, text = _image_tensors(config.image), _text_tensors(config.text, config.embed_dim)
    shapes = {expected.source: expected.shape for expected in (*image.values(), *text.values())}
    shapes |= _head_shapes(config.image.width) | {"logit_scale": (1,), "logit_bias": (1,)}
    tensors = read_tensors(weights.stored, shapes, folder, IGNORED_TENSORS.__contains__)
    image_weights = {name: tensors[expected.source] for name, expected in image.items()} | _canonical_head(tensors)
    image_weights["embedding.position"] = add_bias(image_weights["embedding.position"], tensors[PATCH_BIAS])
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
        logit_scale=exp_logit_scale(folder, tensors["logit_scale"].item()),
        logit_bias=tensors["logit_bias"].item(),
        activation="sigmoid",
        preprocessing=preprocessing,
        license=read_license(folder),
        source_sha256=hash_files(weights.files),
        space_id=space_id(config, image_weights, text_weights),
        read_tokenizer=lambda: read_siglip_tokenizer(tokenizer, config.text.context_length, config.text.vocab_size),
    )


def read_siglip2_folder(folder: Path, source: ModelSource) -> Checkpoint:
    """Refuse a folder of ``model_type`` "siglip2": pictures of any shape, which no canonical tower takes."""
    raise UnsupportedArchitectureError(
        f"{folder / 'config.json'}: model_type is 'siglip2', which takes pictures of any shape (NaFlex); expected "
        "'siglip', SigLIP 2 of a fixed resolution: export a checkpoint whose name ends in it, such as patch16-224"
    )


def _image_tensors(config: VitConfig) -> dict[str, Expected]:
    """The tensors that are taken as they are."""
    width, patch, mlp_width = config.width, config.patch_size, config.mlp_width
    position = Expected("vision_model.embeddings.position_embedding.weight", (config.tokens, width))
    return {
        "embedding.patch.weight": Expected(PATCH, (width, 3, patch, patch)),
        "embedding.position": position,
        **encoder_blocks("vision_model", config),
        **affine("pooling.norm", "vision_model.post_layernorm", (width,)),
        **affine("pooling.attn.out", f"{HEAD}.attention.out_proj", (width, width)),
        **affine("pooling.perceptron.norm", f"{HEAD}.layernorm", (width,)),
        **affine("pooling.perceptron.fc1", f"{HEAD}.mlp.fc1", (mlp_width, width)),
        **affine("pooling.perceptron.fc2", f"{HEAD}.mlp.fc2", (width, mlp_width)),
    }


def _text_tensors(config: TextConfig, embed_dim: int) -> dict[str, Expected]:
    width, embeddings = config.width, "text_model.embeddings"
    return {
        "embedding.token": Expected(f"{embeddings}.token_embedding.weight", (config.vocab_size, width)),
        "embedding.position": Expected(f"{embeddings}.position_embedding.weight", (config.context_length, width)),
        **encoder_blocks("text_model", config),
        **affine("norm_post", "text_model.final_layer_norm", (width,)),
        **affine("projection", "text_model.head", (embed_dim, width)),
    }


def _head_shapes(width: int) -> dict[str, Shape]:
    """The tensors that the canonical tower has in another form."""
    return {
        PATCH_BIAS: (width,),
        f"{HEAD}.probe": (1, 1, width),
        f"{HEAD}.attention.in_proj_weight": (3 * width, width),
        f"{HEAD}.attention.in_proj_bias": (3 * width,),
    }


def _canonical_head(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Queries, keys and values lie in one matrix, in this order."""
    weight, key, value = tensors[f"{HEAD}.attention.in_proj_weight"].chunk(3)
    bias, key_bias, value_bias = tensors[f"{HEAD}.attention.in_proj_bias"].chunk(3)
    return {
        "pooling.attn.query": project_query(tensors[f"{HEAD}.probe"].flatten(), weight, bias),
        "pooling.attn.key.weight": key,
        "pooling.attn.key.bias": key_bias,
        "pooling.attn.value.weight": value,
        "pooling.attn.value.bias": value_bias,
    }


def project_query(learned: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The query (P,) of a learned vector (W,), rounded once."""
    return (weight.double() @ learned.double() + bias.double()).to(weight.dtype)


def add_bias(position: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The positions (T, W) with the bias (W,) of the patch convolution, rounded once."""
    return (position.double() + bias.double()).to(position.dtype)
