"""Transformers as students begin, where nothing is inherited: CLIP's own initialisation.

https://github.com/openai/CLIP, ``initialize_parameters`` and the vision tower.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from clipedge.export.checkpoints.configs import TextConfig, VitConfig
from clipedge.export.checkpoints.huggingface.clip import Expected, image_tensors, text_tensors

__all__ = ["new_text_weights", "new_vit_weights"]


def new_vit_weights(config: VitConfig, embed_dim: int, seed: int) -> dict[str, torch.Tensor]:
    """An image tower's weights by their canonical names."""
    spreads = {
        "embedding.patch": (3 * config.patch_size**2) ** -0.5,
        "embedding.class_token": config.width**-0.5,
        "embedding.position": config.width**-0.5,
        **_spreads(config),
    }
    return _draw(image_tensors(config, embed_dim), spreads, torch.Generator().manual_seed(seed))


def new_text_weights(config: TextConfig, embed_dim: int, seed: int) -> dict[str, torch.Tensor]:
    """A text tower's weights by their canonical names; other numbers than an image tower's of the same seed."""
    spreads = {"embedding.token": 0.02, "embedding.position": 0.01, **_spreads(config)}
    own = int(np.random.default_rng((seed, 4)).integers(2**63))
    return _draw(text_tensors(config, embed_dim), spreads, torch.Generator().manual_seed(own))


def _spreads(config: VitConfig | TextConfig) -> dict[str, float]:
    """The standard deviations of what both towers have, by the last part of a layer's name."""
    width = config.width
    return {
        "query": width**-0.5,
        "key": width**-0.5,
        "value": width**-0.5,
        "out": width**-0.5 * (2 * config.layers) ** -0.5,
        "fc1": (2 * width) ** -0.5,
        "fc2": width**-0.5 * (2 * config.layers) ** -0.5,
        "projection": width**-0.5,
    }


def _draw(
    tensors: Mapping[str, Expected], spreads: Mapping[str, float], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    weights = {}
    for name, expected in tensors.items():
        layer = name.removesuffix(".weight").removesuffix(".bias")
        spread = spreads.get(layer, spreads.get(layer.rpartition(".")[2]))
        if name.endswith(".bias"):
            weights[name] = torch.zeros(expected.shape)
        elif spread is None:  # the gain of a norm
            weights[name] = torch.ones(expected.shape)
        else:
            weights[name] = spread * torch.randn(expected.shape, generator=generator)
    return weights
