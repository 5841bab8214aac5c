"""A checkpoint -> its towers in torch, straight from its own tensors.

They are the reference: the arithmetic of the original (Radford et al. 2021, "Learning Transferable Visual Models From
Natural Language Supervision", arXiv 2103.00020), with nothing rearranged except in convolutional towers, whose
BatchNorms are part of the weights as they are read. ``clipedge.export.towers.simplify`` swaps parts of a tower for
cheaper ones that compute the same, and ``clipedge.export.graphs`` writes the result down as ONNX. Modules are put
together from their parts, so that a part can be swapped without touching the tower it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import nn

from clipedge.export.checkpoints.checkpoint import Checkpoint
from clipedge.export.checkpoints.configs import (
    FastVitConfig,
    ResNetConfig,
    TracedImageConfig,
    TracedTextConfig,
    VitConfig,
)
from clipedge.export.libraries import library_image_tower, library_text_tower
from clipedge.export.towers.fastvit import FastVitTower, empty_fastvit
from clipedge.export.towers.resnet import ResNetTower, empty_resnet
from clipedge.export.towers.text import TextTower, empty_text_tower
from clipedge.export.towers.traced import TracedImageTower, TracedTextTower
from clipedge.export.towers.vit import ImageTower, empty_vit
from clipedge.manifest import Preprocessing

__all__ = ["AnyImageTower", "AnyTextTower", "build_image_tower", "build_text_tower"]

AnyImageTower: TypeAlias = ImageTower | ResNetTower | FastVitTower | TracedImageTower
AnyTextTower: TypeAlias = TextTower | TracedTextTower


def build_image_tower(checkpoint: Checkpoint) -> AnyImageTower:
    """The reference image tower: (B, H, W, 3) uint8 RGB to (B, D). Shares the checkpoint's float32 weights."""
    if isinstance(checkpoint.image, TracedImageConfig):
        source = library_image_tower(checkpoint.image)
        _assign(source, checkpoint.image_weights)
        return TracedImageTower(checkpoint.image, source, checkpoint.preprocessing).eval()
    with torch.device("meta"):  # no memory and no time for random weights that are about to be replaced
        tower = _empty_image_tower(checkpoint.image, checkpoint.preprocessing, checkpoint.embed_dim)
    _assign(tower, checkpoint.image_weights)
    return tower


def _empty_image_tower(
    config: VitConfig | ResNetConfig | FastVitConfig, preprocessing: Preprocessing, embed_dim: int
) -> AnyImageTower:
    if isinstance(config, ResNetConfig):
        return empty_resnet(config, preprocessing, embed_dim)
    if isinstance(config, FastVitConfig):
        return empty_fastvit(config, preprocessing, embed_dim)
    return empty_vit(config, preprocessing, embed_dim)


def build_text_tower(checkpoint: Checkpoint) -> AnyTextTower:
    """The reference text tower: (B, T) int64 token ids to (B, D). Shares the checkpoint's float32 weights."""
    if isinstance(checkpoint.text, TracedTextConfig):
        source = library_text_tower(checkpoint.text)
        _assign(source, checkpoint.text_weights)
        return TracedTextTower(checkpoint.text, source).eval()
    with torch.device("meta"):
        tower = empty_text_tower(checkpoint.text, checkpoint.embed_dim)
    _assign(tower, checkpoint.text_weights)
    return tower


def _assign(tower: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    tower.load_state_dict(weights, assign=True)
    tower.requires_grad_(False).eval()
