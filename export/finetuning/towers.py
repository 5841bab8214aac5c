"""Both towers of a model as one module to train, and their weights as a checkpoint has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from operator import attrgetter

import torch
from torch import nn

from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.checkpoint import space_id
from clipedge.export.checkpoints.configs import ModelConfig, TextConfig, VitConfig
from clipedge.export.finetuning.lora import add_lora
from clipedge.export.towers import build_image_tower, build_text_tower
from clipedge.export.training.learner import LOG_SCALE

__all__ = ["Towers", "check_model", "check_rank", "with_weights"]


class Towers(nn.Module):
    """``image``, ``text``, and ``log_scale``, the logarithm of the logit scale. Owns its weights, which all train."""

    def __init__(self, model: Checkpoint) -> None:
        super().__init__()
        image = {name: weight.clone() for name, weight in model.image_weights.items()}
        text = {name: weight.clone() for name, weight in model.text_weights.items()}
        own = replace(model, image_weights=image, text_weights=text)
        self.image, self.text = build_image_tower(own), build_text_tower(own)
        self.log_scale = nn.Parameter(torch.tensor(math.log(model.logit_scale)))
        self.names = tuple(name for name, _ in self.named_parameters())
        self.requires_grad_(True)

    def add_lora(self, rank: int, seed: int) -> None:
        """Train low-rank updates and the scale alone."""
        add_lora(self, rank, seed)
        self.log_scale.requires_grad_(True)

    def trained(self) -> dict[str, torch.Tensor]:
        """The parameters that train, by name."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of all weights under the names that they had at first, with updates merged into them."""
        return {name: attrgetter(name)(self).detach().clone() for name in self.names}

    def assign(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over what ``weights`` gave. For towers without updates."""
        with torch.no_grad():
            for name, weight in self.named_parameters():
                weight.copy_(weights[name])


def check_model(model: Checkpoint) -> None:
    """Raises CheckpointError for a model that cannot be written in CLIP's layout, or has no tokenizer."""
    image, text = model.image, model.text
    is_clip = (
        isinstance(image, VitConfig)
        and isinstance(text, TextConfig)
        and model.activation == "softmax"
        and image
        == replace(image, pool="class", class_token=True, norm_pre=True, conv_stem=False, projection_bias=False)
        and text == replace(text, causal=True, pool="end", class_token=False, mixers=False, projection_bias=False)
    )
    if not is_clip:
        raise CheckpointError(
            f"{model.name}: a fine-tuned model is saved in CLIP's layout; expected a vision transformer pooled at its "
            "class token, a causal text transformer pooled at the end of the text, and softmax, found another. "
            "Fine-tune it where it was trained, or take a CLIP"
        )
    assert model.tokenizer_json  # read now: what is missing is said before anything is trained


def check_rank(model: Checkpoint, rank: int) -> None:
    """Raises UsageError for a rank at which an update has as many numbers as the smallest weight that gets one."""
    assert isinstance(model.image, VitConfig) and isinstance(model.text, TextConfig)
    width = min(model.image.width, model.text.width)
    most = (width - 1) // 2
    if rank > most:
        raise UsageError(
            f"--lora {rank}: layers of {width} x {width} weights take a rank of {most} at most; name a lower one, or "
            "train all weights: leave --lora out"
        )


def with_weights(model: Checkpoint, weights: Mapping[str, torch.Tensor]) -> Checkpoint:
    """The model with the weights that ``Towers.weights`` gave: another embedding space."""
    image, text = (
        {name.removeprefix(tower): weight for name, weight in weights.items() if name.startswith(tower)}
        for tower in ("image.", "text.")
    )
    config = ModelConfig(model.image, model.text, model.embed_dim)
    scale = math.exp(float(weights[LOG_SCALE]))
    space = space_id(config, image, text)
    return replace(model, image_weights=image, text_weights=text, logit_scale=scale, space_id=space)
