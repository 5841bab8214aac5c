"""Image towers of OpenCLIP folders that open_clip has to build: timm's, other than those that ClipEdge reads itself.

Which these are stands in ``clipedge.export.libraries``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

from clipedge.errors import MissingDependencyError
from clipedge.export.checkpoints.checkpoint import UnsupportedArchitectureError
from clipedge.export.checkpoints.configs import TracedImageConfig
from clipedge.export.checkpoints.layouts import ImageLayout
from clipedge.export.checkpoints.openclip.config import OpenClipModel
from clipedge.export.libraries.open_clip import open_clip_image_tower

__all__ = ["traced_layout"]

PREFIX = "visual."


def traced_layout(model: OpenClipModel) -> ImageLayout:
    """The tensors of the tower, which keep the names that they have in open_clip.

    Raises UnsupportedArchitectureError when open_clip cannot build it, MissingDependencyError without open_clip.
    """
    config = TracedImageConfig(
        library="open_clip",
        architecture=str(model.vision.values["timm_model_name"]),
        settings=json.dumps(
            {"embed_dim": model.embed_dim, "vision_cfg": model.vision.values, "quick_gelu": model.quick_gelu},
            sort_keys=True,
        ),
        image_size=model.vision.integer("image_size", 224),
    )
    try:
        tower = open_clip_image_tower(config)
    except MissingDependencyError:
        raise
    except Exception as error:  # whatever open_clip and timm raise for names and settings that they do not know
        refused = model.vision.refuse("timm_model_name", f"an image tower that open_clip can build ({error!r:.200})")
        raise UnsupportedArchitectureError(str(refused)) from None
    tensors = tower.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in tensors.items() if tensor.is_floating_point()}
    counts = {PREFIX + name for name in tensors.keys() - wanted.keys()}

    def canonical(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensors[PREFIX + name] for name in wanted}

    return ImageLayout(
        config,
        {PREFIX + name: shape for name, shape in wanted.items()},
        canonical,
        ignored=counts.__contains__,
    )
