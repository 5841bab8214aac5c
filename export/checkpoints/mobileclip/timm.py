"""MobileCLIP and MobileCLIP2 in OpenCLIP's layout: the image towers that open_clip takes from timm.

Papers: Vasu et al. 2023 (arXiv 2311.17049), Faghri et al. 2025 (arXiv 2508.20691). Shapes are those of timm's
``fastvit_mci0`` to ``fastvit_mci4`` (``timm.models.fastvit``) and ``vit_base_mci_224``
(``timm.models.vision_transformer_hybrid``), which a name alone stands for in ``model_cfg``; each is checked against
the tensors. The text towers are OpenCLIP's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from clipedge.export.checkpoints.checkpoint import UnsupportedArchitectureError
from clipedge.export.checkpoints.configs import FastVitConfig, VitConfig
from clipedge.export.checkpoints.layouts import ImageLayout
from clipedge.export.checkpoints.mobileclip.fastvit import TIMM, fastvit_layout
from clipedge.export.checkpoints.mobileclip.vit import TIMM_VIT, conv_stem_vit_layout
from clipedge.export.checkpoints.openclip.config import OpenClipModel
from clipedge.export.checkpoints.tensors import Stored

__all__ = ["CONV_STEM_VIT", "FASTVITS", "MOBILECLIP_NAMES", "mobileclip_layout"]


def _mci(width: int, depths: tuple[int, ...]) -> FastVitConfig:
    """Four stages, the last with attention."""
    widths = (width, 2 * width, 4 * width, 8 * width)
    return FastVitConfig(256, widths, depths, mlp_ratio=3, attention_stages=1, squeeze_stages=(2, 3))


def _large_mci(width: int, depths: tuple[int, ...]) -> FastVitConfig:
    """Five stages, the last two with attention behind a LayerNorm."""
    widths = (width, 2 * width, 4 * width, 8 * width, 16 * width)
    return FastVitConfig(256, widths, depths, mlp_ratio=4, attention_stages=2, squeeze_stages=(), norm_eps=1e-5)


FASTVITS: Mapping[str, FastVitConfig] = {
    "fastvit_mci0": _mci(64, (2, 6, 10, 2)),
    "fastvit_mci1": _mci(64, (4, 12, 20, 4)),
    "fastvit_mci2": _mci(80, (4, 12, 24, 4)),
    "fastvit_mci3": _large_mci(96, (2, 12, 24, 4, 2)),
    "fastvit_mci4": _large_mci(128, (2, 12, 24, 4, 4)),
}

CONV_STEM_VIT = VitConfig(
    image_size=224,
    patch_size=16,
    width=768,
    layers=12,
    heads=12,
    mlp_width=3072,
    activation="gelu",
    eps=1e-6,
    norm_pre=False,
    conv_stem=True,
    projection_bias=True,
)

# timm's, as a pattern.
MOBILECLIP_NAMES = "fastvit_mci[0-4]|vit_base_mci_224"

# Trained without a branch for a single position in the stem.
WITHOUT_STEM_SCALE = frozenset({"fastvit_mci3", "fastvit_mci4"})


def mobileclip_layout(model: OpenClipModel, stored: Stored) -> ImageLayout:
    """How a file with ``stored`` in it has the image tower named by ``timm_model_name`` in ``vision_cfg``.

    Raises UnsupportedArchitectureError where ``vision_cfg`` asks for another pooling or projection than MobileCLIP's,
    CheckpointError for an impossible image size.
    """
    section, name = model.vision, str(model.vision.values["timm_model_name"])
    is_fastvit = name in FASTVITS
    pool, size = "avg" if is_fastvit else "token", section.integer("image_size", 224)
    if section.values.get("timm_pool", "avg") != pool:
        raise UnsupportedArchitectureError(str(section.refuse("timm_pool", f'"{pool}"')))
    if section.values.get("timm_proj", "linear"):
        raise UnsupportedArchitectureError(str(section.refuse("timm_proj", "null: timm's own classifier projects")))
    if not is_fastvit:
        if size != CONV_STEM_VIT.image_size:
            raise section.refuse("image_size", f"{CONV_STEM_VIT.image_size}")
        return conv_stem_vit_layout(CONV_STEM_VIT, model.embed_dim, TIMM_VIT)
    config = replace(FASTVITS[name], image_size=size)
    if size % config.stride:
        raise section.refuse("image_size", f"a multiple of {config.stride}")
    return fastvit_layout(config, model.embed_dim, TIMM, stored, stem_scale=name not in WITHOUT_STEM_SCALE)
