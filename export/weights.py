"""A Hugging Face CLIP's tensors, from safetensors files to float32 under canonical names.

The canonical names are those of the towers' parameters (``clipedge.export.towers``), so a tower loads them as
they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from clipedge.bundle import sha256_of
from clipedge.errors import CheckpointError
from clipedge.export.configs import ImageConfig, ModelConfig, TextConfig, read_json

__all__ = ["Weights", "find_weight_files", "hash_files", "read_weights"]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# What safetensors calls the types that a float32 holds exactly.
FLOAT_TYPES = ("F16", "BF16", "F32")

# Older transformers stored these index vectors (0, 1, 2, ...) as if they were weights.
IGNORED_TENSORS = frozenset(
    {"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"},
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """Float32 tensors by canonical name; ``logit_scale`` is the trained logarithm, as stored."""

    image: Mapping[str, torch.Tensor]
    text: Mapping[str, torch.Tensor]
    logit_scale: float


@dataclass(frozen=True)
class _Expected:
    """The Hugging Face name and shape of a canonical tensor."""

    source: str
    shape: Shape


def find_weight_files(folder: Path) -> tuple[Path, ...]:
    """``model.safetensors``, or the shards that ``model.safetensors.index.json`` names, sorted.

    Raises CheckpointError when there are none, a shard is missing, or the index points out of the folder.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return (folder / WEIGHTS_FILE,)
    index = folder / INDEX_FILE
    if not index.is_file():
        raise _no_weights(folder)
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; fetch the checkpoint again")
    names = {str(name) for name in weight_map.values()}
    for name in sorted(names):
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(f"{index} names the file {name!r}, which is not in {folder}; fetch it again")
    return tuple(folder / name for name in sorted(names))


def _no_weights(folder: Path) -> CheckpointError:
    if (folder / "pytorch_model.bin").is_file():
        return CheckpointError(
            f"{folder} has its weights in pytorch_model.bin, a pickle, which can run code when opened; expected "
            f"{WEIGHTS_FILE}. Convert it: transformers.CLIPModel.from_pretrained(folder).save_pretrained(new_folder)"
        )
    return CheckpointError(f"{folder} has no {WEIGHTS_FILE} (or {INDEX_FILE}); expected a Hugging Face CLIP folder")


def hash_files(files: Sequence[Path]) -> str:
    """SHA-256 in hex: of the bytes of a single file (what model hubs show), or of the files' digests in order."""
    digests = [sha256_of(path) for path in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def read_weights(files: Sequence[Path], config: ModelConfig) -> Weights:
    """Read every tensor that ``config`` calls for, as float32.

    Raises CheckpointError, naming the tensors, when a file is damaged or tensors are missing, left over, of
    another shape, of a type that float32 does not hold exactly, or not finite.
    """
    image = _image_tensors(config.image, config.embed_dim)
    text = _text_tensors(config.text, config.embed_dim)
    scale = _Expected("logit_scale", ())
    tensors = _read_tensors(files, [*image.values(), *text.values(), scale])
    return Weights(
        image={name: tensors[expected.source] for name, expected in image.items()},
        text={name: tensors[expected.source] for name, expected in text.items()},
        logit_scale=float(tensors[scale.source]),
    )


def _read_tensors(files: Sequence[Path], expected: Iterable[_Expected]) -> dict[str, torch.Tensor]:
    shapes = {item.source: item.shape for item in expected}
    tensors: dict[str, torch.Tensor] = {}
    unexpected: set[str] = set()
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                names = set(file.keys()) - IGNORED_TENSORS
                unexpected |= names - shapes.keys()
                for name in sorted(names & shapes.keys()):
                    stored = file.get_slice(name)
                    _check_tensor(path, name, tuple(stored.get_shape()), shapes[name], stored.get_dtype())
                    tensors[name] = file.get_tensor(name).to(torch.float32)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); fetch the checkpoint again") from None
    _check_names(files[0].parent, shapes.keys() - tensors.keys(), unexpected)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{files[0].parent}: the tensor {name} contains NaN or infinity; use sound weights")
    return tensors


def _check_tensor(path: Path, name: str, found: Shape, expected: Shape, dtype: str) -> None:
    if found != expected:
        raise CheckpointError(
            f"{path}: the tensor {name} has the shape {list(found)}, config.json calls for {list(expected)}; "
            "the two files belong to different models"
        )
    if dtype not in FLOAT_TYPES:
        raise CheckpointError(
            f"{path}: the tensor {name} has the type {dtype}, expected {', '.join(FLOAT_TYPES)}; "
            "export the unquantized checkpoint"
        )


def _check_names(folder: Path, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    for names, problem in ((sorted(missing), "lack"), (sorted(unexpected), "have beyond those of a CLIP model")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"{folder}: the weights {problem} {', '.join(names[:3])}{more}; "
                "config.json and the weights belong to different models, or a shard is missing"
            )


def _image_tensors(config: ImageConfig, embed_dim: int) -> dict[str, _Expected]:
    width, patch = config.width, config.patch_size
    return {
        "embedding.patch.weight": _Expected("vision_model.embeddings.patch_embedding.weight", (width, 3, patch, patch)),
        "embedding.class_token": _Expected("vision_model.embeddings.class_embedding", (width,)),
        "embedding.position": _Expected("vision_model.embeddings.position_embedding.weight", (config.tokens, width)),
        **_affine("embedding.norm", "vision_model.pre_layrnorm", (width,)),  # sic
        **_blocks("vision_model", config),
        **_affine("norm_post", "vision_model.post_layernorm", (width,)),
        "projection.weight": _Expected("visual_projection.weight", (embed_dim, width)),
    }


def _text_tensors(config: TextConfig, embed_dim: int) -> dict[str, _Expected]:
    width = config.width
    return {
        "embedding.token": _Expected("text_model.embeddings.token_embedding.weight", (config.vocab_size, width)),
        "embedding.position": _Expected(
            "text_model.embeddings.position_embedding.weight", (config.context_length, width)
        ),
        **_blocks("text_model", config),
        **_affine("norm_post", "text_model.final_layer_norm", (width,)),
        "projection.weight": _Expected("text_projection.weight", (embed_dim, width)),
    }


def _blocks(tower: str, config: ImageConfig | TextConfig) -> dict[str, _Expected]:
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
    tensors: dict[str, _Expected] = {}
    for index in range(config.layers):
        for name, source, shape in parts:
            tensors |= _affine(f"blocks.{index}.{name}", f"{tower}.encoder.layers.{index}.{source}", shape)
    return tensors


def _affine(name: str, source: str, shape: Shape) -> dict[str, _Expected]:
    """A weight and the bias that goes with its first dimension."""
    return {
        f"{name}.weight": _Expected(f"{source}.weight", shape),
        f"{name}.bias": _Expected(f"{source}.bias", shape[:1]),
    }
