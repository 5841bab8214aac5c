"""Image towers that open_clip builds (Ilharco et al. 2021, "OpenCLIP", https://github.com/mlfoundations/open_clip)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from clipedge.errors import MissingDependencyError
from clipedge.export.checkpoints.configs import TracedImageConfig

__all__ = ["import_open_clip", "open_clip_image_tower"]

# A text tower has to be there, too; the smallest.
SOME_TEXT: Mapping[str, Any] = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


def open_clip_image_tower(config: TracedImageConfig) -> nn.Module:
    """The tower with weights that mean nothing: float32 (B, 3, H, W) to (B, D).

    Raises MissingDependencyError where open_clip is not installed or does not load, and whatever open_clip raises for
    an architecture that it does not know.
    """
    settings = json.loads(config.settings)
    vision = {**settings["vision_cfg"], "timm_model_pretrained": False}  # nothing is downloaded
    model = import_open_clip().CLIP(
        embed_dim=settings["embed_dim"],
        vision_cfg=vision,
        text_cfg=dict(SOME_TEXT),
        quick_gelu=settings["quick_gelu"],
    )
    tower: nn.Module = model.visual
    return tower.eval()


def import_open_clip() -> Any:
    """open_clip, with timm. Raises MissingDependencyError where they are not installed, or lie beside a torchvision
    that was built for another torch: open_clip then cannot be imported."""
    try:
        import open_clip
        import timm  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"this image tower is built by open_clip and timm, which cannot be imported here ({error}): "
            'pip install "clipedge[open-clip]", with the torchvision that belongs to the installed torch '
            "(https://github.com/pytorch/vision#installation)"
        ) from None
    return open_clip
