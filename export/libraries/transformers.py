"""Towers that transformers builds (Wolf et al. 2020, https://github.com/huggingface/transformers)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clipedge.errors import MissingDependencyError
from clipedge.export.checkpoints.checkpoint import UnsupportedArchitectureError
from clipedge.export.checkpoints.configs import TracedImageConfig, TracedTextConfig

__all__ = ["pretrained", "transformers_image_tower", "transformers_text_tower"]


def transformers_image_tower(config: TracedImageConfig) -> nn.Module:
    """The tower with weights that mean nothing: float32 (B, 3, H, W) to (B, D).

    Its parameters are called ``model.`` and what transformers calls them.
    """
    size = config.image_size
    return _pruned(_ImageFeatures(_empty(config)), torch.zeros(1, 3, size, size))


def transformers_text_tower(config: TracedTextConfig) -> nn.Module:
    """The tower with weights that mean nothing: int64 (B, T) to (B, D). Names as in ``transformers_image_tower``."""
    input_ids = torch.full((1, config.context_length), config.end_token_id)
    return _pruned(_TextFeatures(_empty(config), config), input_ids)


def pretrained(place: Path, auto: str, **options: Any) -> Any:
    """What transformers' class ``auto`` makes of local files, without running code that lies beside them.

    Raises UnsupportedArchitectureError when it makes nothing of them, MissingDependencyError without transformers.
    """
    transformers = _transformers()
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return getattr(transformers, auto).from_pretrained(place, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise UnsupportedArchitectureError(
            f"{place}: transformers' {auto} makes nothing of it ({str(error).strip().splitlines()[0]})"
        ) from None
    finally:
        if shown:
            logging.enable_progress_bar()


def _transformers() -> Any:
    """transformers, 5 or newer."""
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError(_missing(str(error))) from None
    if int(transformers.__version__.split(".")[0]) < 5:
        raise MissingDependencyError(_missing(f"found {transformers.__version__}"))
    return transformers


def _missing(found: str) -> str:
    return f'this model is built by transformers, version 5 or newer ({found}): pip install "clipedge[transformers]"'


class _ImageFeatures(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return _features(self.model.get_image_features(pixel_values=pixel_values))


class _TextFeatures(nn.Module):
    """Padding is what the tokenizer pads with; where that is the end token, whatever follows the first of them."""

    def __init__(self, model: Any, config: TracedTextConfig) -> None:
        super().__init__()
        self.model = model
        self.pad_token_id = config.pad_token_id
        self.end_pads = config.pad_token_id == config.end_token_id

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        pads = input_ids == self.pad_token_id
        seen = pads.cumsum(dim=-1) <= 1 if self.end_pads else ~pads
        return _features(self.model.get_text_features(input_ids=input_ids, attention_mask=seen.long()))


def _features(found: Any) -> torch.Tensor:
    """transformers 5 returns projected features as the pooled output of an object, some families as a tensor."""
    features: torch.Tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
    return features


def _empty(config: TracedImageConfig | TracedTextConfig) -> Any:
    transformers = _transformers()
    settings = json.loads(config.settings)
    settings.pop("model_type", None)
    return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(config.architecture, **settings))


def _pruned(tower: nn.Module, example: torch.Tensor) -> nn.Module:
    """Take the other tower out of the model: its modules are those that are not called."""
    model = tower.get_submodule("model")
    called: set[str] = set()
    hooks = [
        child.register_forward_hook(lambda *_, name=name: called.add(name)) for name, child in model.named_children()
    ]
    with torch.inference_mode():
        tower.eval()(example)
    for hook in hooks:
        hook.remove()
    unused = {name for name, _ in model.named_children()} - called
    for name in (*unused, *dict(model.named_parameters(recurse=False))):  # logit_scale
        delattr(model, name)
    return tower
