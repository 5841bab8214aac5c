"""Towers that ClipEdge has no form of its own for, built by the library they come from: the fallback.

Their graphs are traced (``clipedge.export.graphs.trace``) where those of the canonical towers are written node by node;
calibration, proof and bundle are the same. What it supports:

- Folders of transformers (5 or newer) whose ``AutoModel`` has ``get_image_features``, ``get_text_features`` and a
  ``logit_scale``, and whose tokenizer puts a start and an end token around a text: ChineseCLIP and its like.
- OpenCLIP folders whose image tower is one of timm's (``timm_model_name``): ConvNeXt, EVA, ViTamin and others. The
  text tower has to be OpenCLIP's own, which is built and written as always; one of transformers (``hf_model_name``) is
  refused.

The tests export ChineseCLIP and a ConvNeXt; other families follow the same rules, and the proof of each export shows
whether they hold. Convolutions over fewer than 16 channels of a group stay in float, depthwise ones among them.

Weights are read from local files as tensors, never as code: no file of a checkpoint is executed, and nothing is
downloaded. An architecture that torch cannot trace, or whose graph is not of the ONNX standard, is refused by name.

Compared with the canonical towers nothing is simplified: pixels are normalised by nodes of their own, and every token
is computed up to the last block. optimum-onnx, which traces transformers' models too, is not used: its release 0.1
needs transformers below 4.58, and so cannot be installed beside the transformers that reads today's folders.
"""

from __future__ import annotations

from torch import nn

from clipedge.export.checkpoints.configs import TracedImageConfig, TracedTextConfig
from clipedge.export.libraries.open_clip import open_clip_image_tower
from clipedge.export.libraries.transformers import transformers_image_tower, transformers_text_tower

__all__ = ["library_image_tower", "library_text_tower"]


def library_image_tower(config: TracedImageConfig) -> nn.Module:
    """The tower with weights that mean nothing: float32 (B, 3, H, W) to (B, D)."""
    return open_clip_image_tower(config) if config.library == "open_clip" else transformers_image_tower(config)


def library_text_tower(config: TracedTextConfig) -> nn.Module:
    """The tower with weights that mean nothing: int64 (B, T) to (B, D)."""
    return transformers_text_tower(config)
