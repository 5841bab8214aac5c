"""Architectures by name, for files of weights that say nothing about themselves.

The names are OpenCLIP's (``open_clip.list_models()``), the dimensions those of the published models. "-quickgelu"
behind a name means OpenAI's activation: OpenAI's own weights need it, those that OpenCLIP trained mostly do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipedge.errors import UsageError

__all__ = ["QUICK_GELU", "architecture_named", "architectures_like", "preprocessing_named"]

QUICK_GELU = "-quickgelu"

ModelCfg = dict[str, Any]


def _vit(patch: int, size: int, width: int, layers: int, embed_dim: int, text: ModelCfg, **others: Any) -> ModelCfg:
    vision = {"patch_size": patch, "image_size": size, "width": width, "layers": layers, **others}
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text}


def _resnet(layers: list[int], width: int, size: int, embed_dim: int, text: ModelCfg) -> ModelCfg:
    vision = {"layers": layers, "width": width, "image_size": size}
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text}


def _mobileclip(timm_name: str, pool: str, size: int, width: int, causal: bool) -> ModelCfg:
    vision = {"timm_model_name": timm_name, "timm_pool": pool, "timm_proj": None, "image_size": size}
    return {"embed_dim": width, "vision_cfg": vision, "text_cfg": {**_text(width), "no_causal_mask": not causal}}


def _text(width: int, layers: int = 12) -> ModelCfg:
    """CLIP's text transformer: 77 of 49408 tokens, 64 channels a head."""
    heads = width // 64
    return {"context_length": 77, "vocab_size": 49408, "width": width, "heads": heads, "layers": layers}


ARCHITECTURES: Mapping[str, ModelCfg] = {
    "ViT-S-32": _vit(32, 224, 384, 12, 384, _text(384)),
    "ViT-S-16": _vit(16, 224, 384, 12, 384, _text(384)),
    "ViT-M-32": _vit(32, 224, 512, 12, 512, _text(512)),
    "ViT-M-16": _vit(16, 224, 512, 12, 512, _text(512)),
    "ViT-B-32": _vit(32, 224, 768, 12, 512, _text(512)),
    "ViT-B-32-256": _vit(32, 256, 768, 12, 512, _text(512)),
    "ViT-B-32-plus-256": _vit(32, 256, 896, 12, 640, _text(640)),
    "ViT-B-16": _vit(16, 224, 768, 12, 512, _text(512)),
    "ViT-B-16-plus": _vit(16, 224, 896, 12, 640, _text(640)),
    "ViT-B-16-plus-240": _vit(16, 240, 896, 12, 640, _text(640)),
    "ViT-L-16": _vit(16, 224, 1024, 24, 768, _text(768)),
    "ViT-L-16-320": _vit(16, 320, 1024, 24, 768, _text(768)),
    "ViT-L-14": _vit(14, 224, 1024, 24, 768, _text(768)),
    "ViT-L-14-280": _vit(14, 280, 1024, 24, 768, _text(768)),
    "ViT-L-14-336": _vit(14, 336, 1024, 24, 768, _text(768)),
    "ViT-H-16": _vit(16, 224, 1280, 32, 1024, _text(1024, 24), head_width=80),
    "ViT-H-14": _vit(14, 224, 1280, 32, 1024, _text(1024, 24), head_width=80),
    "ViT-H-14-378": _vit(14, 378, 1280, 32, 1024, _text(1024, 24), head_width=80),
    "ViT-g-14": _vit(14, 224, 1408, 40, 1024, _text(1024, 24), head_width=88, mlp_ratio=4.3637),
    "ViT-bigG-14": _vit(14, 224, 1664, 48, 1280, _text(1280, 32), head_width=104, mlp_ratio=4.9231),
    "RN50": _resnet([3, 4, 6, 3], 64, 224, 1024, _text(512)),
    "RN101": _resnet([3, 4, 23, 3], 64, 224, 512, _text(512)),
    "RN50x4": _resnet([4, 6, 10, 6], 80, 288, 640, _text(640)),
    "RN50x16": _resnet([6, 8, 18, 8], 96, 384, 768, _text(768)),
    "RN50x64": _resnet([3, 15, 36, 10], 128, 448, 1024, _text(1024)),
    "MobileCLIP-S1": _mobileclip("fastvit_mci1", "avg", 256, 512, causal=False),
    "MobileCLIP-S2": _mobileclip("fastvit_mci2", "avg", 256, 512, causal=False),
    "MobileCLIP-B": _mobileclip("vit_base_mci_224", "token", 224, 512, causal=True),
    "MobileCLIP2-S0": _mobileclip("fastvit_mci0", "avg", 256, 512, causal=False),
    "MobileCLIP2-S2": _mobileclip("fastvit_mci2", "avg", 256, 512, causal=False),
    "MobileCLIP2-B": _mobileclip("vit_base_mci_224", "token", 224, 512, causal=True),
    "MobileCLIP2-S3": _mobileclip("fastvit_mci3", "avg", 256, 768, causal=False),
    "MobileCLIP2-S4": _mobileclip("fastvit_mci4", "avg", 256, 768, causal=False),
}

# Of MobileCLIP (``open_clip.pretrained``): neither shifted nor scaled, but for the two that have OpenAI's mean.
BILINEAR: ModelCfg = {"interpolation": "bilinear"}
UNCHANGED: ModelCfg = {**BILINEAR, "mean": 0.0, "std": 1.0}


def architecture_named(name: str) -> ModelCfg:
    """The ``model_cfg`` of an architecture, with ``quick_gelu``. Raises UsageError for a name that is none."""
    base = name.removesuffix(QUICK_GELU)
    if base not in ARCHITECTURES:
        raise UsageError(
            f"unknown architecture {name!r}; there are: {', '.join(ARCHITECTURES)}, each also with {QUICK_GELU} behind"
        )
    return {**ARCHITECTURES[base], "quick_gelu": name != base}


def preprocessing_named(name: str) -> ModelCfg:
    """The ``preprocess_cfg`` of the published models of an architecture, as far as it is not OpenAI's."""
    base = name.removesuffix(QUICK_GELU)
    if not base.startswith("MobileCLIP"):
        return {}
    return BILINEAR if base in ("MobileCLIP2-S3", "MobileCLIP2-S4") else UNCHANGED


def architectures_like(model_cfg: ModelCfg) -> list[str]:
    """The names of the architectures whose tensors have the shapes of ``model_cfg``'s; the activation is left aside."""

    def shape(document: ModelCfg) -> object:
        vision = {key: value for key, value in document["vision_cfg"].items() if key != "head_width"}
        text = {key: value for key, value in document["text_cfg"].items() if key != "heads"}
        return document["embed_dim"], vision, text

    return [name for name, document in ARCHITECTURES.items() if shape(document) == shape(model_cfg)]
