"""Weight inheritance: a student is cut out of its teacher (TinyCLIP, Wu et al. 2023, arXiv 2309.12314).

TinyCLIP's manual inheritance takes blocks and channels by rule, its automatic one learns masks; here blocks, heads,
neurons and channels are chosen by their measured importance (``importance.py``). They keep their order, so a student
that keeps everything is its teacher, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.configs import TextConfig, VitConfig
from clipedge.export.distillation.importance import Importance
from clipedge.export.distillation.spec import StudentSpec

__all__ = ["cut_config", "inherit", "inherit_text", "inherited_config"]

Indices = npt.NDArray[np.intp]
Scores = npt.NDArray[np.float64]
Config = TypeVar("Config", VitConfig, TextConfig)


def inherited_config(teacher: Checkpoint, spec: StudentSpec) -> VitConfig:
    """The shape of the teacher's image tower with fewer of what the specification names.

    Raises CheckpointError unless the teacher is a vision transformer pooled at its class token, and what ``cut_config``
    raises.
    """
    config = teacher.image
    if not isinstance(config, VitConfig) or config != replace(
        config, pool="class", class_token=True, norm_pre=True, conv_stem=False, projection_bias=False
    ):
        raise CheckpointError(
            f"{spec.named}: expected a teacher with CLIP's vision transformer, pooled at its class token, "
            f"found another ({teacher.name}); name a new student, such as vit-s/16"
        )
    return cut_config(config, spec)


def cut_config(config: Config, spec: StudentSpec) -> Config:
    """A tower's shape with fewer of what the specification names.

    Raises UsageError for sizes beyond the tower's own, or that no choice of its heads and channels has.
    """
    width = spec.width or config.width
    head_width = config.width // config.heads
    heads = spec.heads or max(1, width // head_width)
    mlp_width = spec.mlp_width or config.mlp_width * width // config.width
    layers = spec.layers or config.layers
    for name, found, most in (
        ("layers", layers, config.layers),
        ("width", width, config.width),
        ("heads", heads, config.heads),
        ("mlp", mlp_width, config.mlp_width),
    ):
        if not 1 <= found <= most:
            raise UsageError(f"{spec.named}: the teacher has {name} {most}; expected 1 to {most}, found {found}")
    if width % heads or width // heads > head_width:
        raise UsageError(
            f"{spec.named}: {heads} heads of width {width} have {width / heads:g} channels each; expected a "
            f"whole number up to the teacher's {head_width}. Change heads or width"
        )
    return replace(config, layers=layers, width=width, heads=heads, mlp_width=mlp_width)


def inherit(teacher: Checkpoint, config: VitConfig, importance: Importance) -> dict[str, torch.Tensor]:
    """The student's image weights, by their canonical names: the teacher's, of the parts that matter most."""
    source, weights = teacher.image, teacher.image_weights
    assert isinstance(source, VitConfig)
    channels = _channels(config, importance)
    embedding = {
        "embedding.patch.weight": _rows(weights["embedding.patch.weight"], channels),
        "embedding.class_token": _rows(weights["embedding.class_token"], channels),
        "embedding.position": _columns(weights["embedding.position"], channels),
        **_norm(weights, "embedding.norm", "embedding.norm", channels),
    }
    return embedding | _transformer(weights, source, config, importance, channels)


def inherit_text(teacher: Checkpoint, config: TextConfig, importance: Importance) -> dict[str, torch.Tensor]:
    """The same for the student's text weights; of every token's embedding as many channels stay as of all else."""
    source, weights = teacher.text, teacher.text_weights
    assert isinstance(source, TextConfig)
    channels = _channels(config, importance)
    embedding = {
        "embedding.token": _columns(weights["embedding.token"], channels),
        "embedding.position": _columns(weights["embedding.position"], channels),
    }
    return embedding | _transformer(weights, source, config, importance, channels)


def _channels(config: VitConfig | TextConfig, importance: Importance) -> Indices:
    """Those of the residual stream that the chosen blocks and the projection read most."""
    blocks = _most(importance.blocks, config.layers)
    return _most(importance.readers[blocks].sum(axis=0) + importance.projection, config.width)


def _transformer(
    weights: Mapping[str, torch.Tensor], source: Config, config: Config, importance: Importance, channels: Indices
) -> dict[str, torch.Tensor]:
    """All that comes behind the embedding."""
    student = {
        **_norm(weights, "norm_post", "norm_post", channels),
        "projection.weight": _columns(weights["projection.weight"], channels),
    }
    for number, block in enumerate(_most(importance.blocks, config.layers)):
        chosen = _choose(source, config, importance, int(block), channels)
        student |= _block(weights, f"blocks.{block}", f"blocks.{number}", chosen)
    return student


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Indices of what one block keeps. ``gain`` makes up for another scale of the attention scores."""

    channels: Indices
    scores: Indices
    values: Indices
    neurons: Indices
    gain: float


def _choose(source: Config, config: Config, importance: Importance, block: int, channels: Indices) -> _Chosen:
    wide, narrow = source.width // source.heads, config.width // config.heads
    values = importance.values[block].reshape(source.heads, wide)
    scores = importance.scores[block].reshape(source.heads, wide)
    heads = _most(values.sum(axis=1), config.heads)
    return _Chosen(
        channels,
        np.concatenate([head * wide + _most(scores[head], narrow) for head in heads]),
        np.concatenate([head * wide + _most(values[head], narrow) for head in heads]),
        _most(importance.neurons[block], config.mlp_width),
        # The tower divides scores by the root of its own head's width; what is inherited was trained with the
        # teacher's.
        (narrow / wide) ** 0.5,
    )


def _block(weights: Mapping[str, torch.Tensor], old: str, new: str, chosen: _Chosen) -> dict[str, torch.Tensor]:
    channels = chosen.channels
    layers: Sequence[tuple[str, Indices, Indices, float]] = (
        ("attn.query", chosen.scores, channels, chosen.gain),
        ("attn.key", chosen.scores, channels, 1.0),
        ("attn.value", chosen.values, channels, 1.0),
        ("attn.out", channels, chosen.values, 1.0),
        ("fc1", chosen.neurons, channels, 1.0),
        ("fc2", channels, chosen.neurons, 1.0),
    )
    block = _norm(weights, f"{old}.norm1", f"{new}.norm1", channels)
    block |= _norm(weights, f"{old}.norm2", f"{new}.norm2", channels)
    for name, rows, columns, gain in layers:
        block[f"{new}.{name}.weight"] = gain * _columns(_rows(weights[f"{old}.{name}.weight"], rows), columns)
        block[f"{new}.{name}.bias"] = gain * _rows(weights[f"{old}.{name}.bias"], rows)
    return block


def _norm(weights: Mapping[str, torch.Tensor], old: str, new: str, channels: Indices) -> dict[str, torch.Tensor]:
    return {f"{new}.{part}": _rows(weights[f"{old}.{part}"], channels) for part in ("weight", "bias")}


def _most(scores: Scores, count: int) -> Indices:
    """The places of the ``count`` highest scores, in rising order; of equal ones the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _rows(tensor: torch.Tensor, places: Indices) -> torch.Tensor:
    return tensor[torch.from_numpy(places)]


def _columns(tensor: torch.Tensor, places: Indices) -> torch.Tensor:
    return tensor[:, torch.from_numpy(places)]
