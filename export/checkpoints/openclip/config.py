"""OpenCLIP's ``model_cfg``: the shape of a model as ``open_clip.model`` (``CLIPVisionCfg``, ``CLIPTextCfg``) names it.

Keys that are missing have OpenCLIP's defaults. What the canonical towers do not compute is refused with its key, as
``UnsupportedArchitectureError``: OpenCLIP itself may still know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipedge.export.checkpoints.checkpoint import UnsupportedArchitectureError
from clipedge.export.checkpoints.configs import (
    LEGACY_EOS_TOKEN_ID,
    PAD_ID,
    Activation,
    ResNetConfig,
    TextConfig,
    VitConfig,
)
from clipedge.export.checkpoints.sections import Section

__all__ = ["OpenClipModel", "openclip_model", "resnet_config", "text_config", "vit_config"]

# Features of OpenCLIP's transformer blocks that nothing released uses, with the values that switch them off.
PLAIN_BLOCKS: Mapping[str, tuple[Any, ...]] = {
    "block_type": (None, "default"),
    "qk_norm": (False,),
    "scaled_cosine_attn": (False,),
    "scale_heads": (False,),
    "scale_attn_inner": (False,),
    "scale_attn": (False,),
    "scale_fc": (False,),
}
PLAIN_VIT: Mapping[str, tuple[Any, ...]] = {**PLAIN_BLOCKS, "attentional_pool": (False, True), "pool_type": ("tok",)}
PLAIN_TEXT: Mapping[str, tuple[Any, ...]] = {
    **PLAIN_BLOCKS,
    "hf_model_name": (None,),
    "embed_cls": (False, True),
    "proj_type": ("linear",),
    "pool_type": ("argmax", "eos", "last"),
}

# What says how a model is trained, and what another switch makes meaningless. Where the final norm stands is the
# latter: a token's norm depends on that token alone, so pooling one commutes with it.
WITHOUT_EFFECT = frozenset({"patch_dropout", "output_tokens", "final_ln_after_pool", "pos_embed_type", "pad_id"})
VIT_KEYS = frozenset(
    {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "ls_init_value", "no_ln_pre"}
    | {"act_kwargs", "norm_kwargs", "attn_pooler_queries", "attn_pooler_heads", *PLAIN_VIT}
)
TEXT_KEYS = frozenset(
    {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "ls_init_value", "eos_id"}
    | {"no_causal_mask", "proj_bias", "act_kwargs", "norm_kwargs", *PLAIN_TEXT}
    | {"hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}
)


@dataclass(frozen=True)
class OpenClipModel:
    """``model_cfg``, its sections ``vision_cfg`` and ``text_cfg``, and what both towers take from it."""

    whole: Section
    vision: Section
    text: Section
    embed_dim: int
    quick_gelu: bool


def openclip_model(path: Path, document: Mapping[str, Any], name: str = "model_cfg") -> OpenClipModel:
    """Take ``model_cfg`` apart; ``path`` and ``name`` are its place for the messages.

    Raises UnsupportedArchitectureError for a key that OpenCLIP 3.3 does not know, CheckpointError for a wrong value.
    """
    whole = Section(path, name, document)
    known = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "multimodal_cfg"}
    known |= {"init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"}
    _refuse_unknown(whole, known)
    sections = {}
    for key in ("vision_cfg", "text_cfg"):
        if not isinstance(document.get(key), dict):
            raise whole.refuse(key, "an object")
        sections[key] = Section(path, f"{name}.{key}", document[key])
    if "embed_dim" not in document:
        raise whole.refuse("embed_dim", "a positive whole number")
    return OpenClipModel(
        whole=whole,
        vision=sections["vision_cfg"],
        text=sections["text_cfg"],
        embed_dim=whole.integer("embed_dim", 0),
        quick_gelu=whole.flag("quick_gelu", False),
    )


def vit_config(model: OpenClipModel) -> VitConfig:
    """The image tower where it is OpenCLIP's own vision transformer, pooled at its class token."""
    section = model.vision
    _refuse_features(section, PLAIN_VIT, VIT_KEYS)
    image_size, patch_size = _square(section, "image_size", 224), _square(section, "patch_size", 16)
    if image_size % patch_size:
        raise section.refuse("patch_size", f"a divisor of image_size = {image_size}")
    width, head_width = section.integer("width", 768), section.integer("head_width", 64)
    if width % head_width:
        raise section.refuse("head_width", f"a divisor of width = {width}")
    attentional, pool_heads = section.flag("attentional_pool", False), section.integer("attn_pooler_heads", 8)
    if attentional and model.embed_dim % pool_heads:
        raise section.refuse("attn_pooler_heads", f"a divisor of embed_dim = {model.embed_dim}")
    return VitConfig(
        image_size=image_size,
        patch_size=patch_size,
        width=width,
        layers=section.integer("layers", 12),
        heads=width // head_width,
        mlp_width=_mlp_width(section, width),
        activation=_activation(section, model.quick_gelu),
        eps=_eps(section),
        norm_pre=not section.flag("no_ln_pre", False),
        pool="attentional" if attentional else "class",
        pool_heads=pool_heads if attentional else 8,
    )


def resnet_config(model: OpenClipModel) -> ResNetConfig:
    """The image tower where it is OpenAI's modified ResNet: ``layers`` is a list. It has no GELU in it."""
    section = model.vision
    _refuse_unknown(section, VIT_KEYS)
    layers = section.values.get("layers")
    if not isinstance(layers, (list, tuple)) or len(layers) != 4 or not all(type(n) is int and n > 0 for n in layers):
        raise section.refuse("layers", "four positive whole numbers")
    width, head_width = section.integer("width", 64), section.integer("head_width", 64)
    if width * 32 % head_width:
        raise section.refuse("head_width", f"a divisor of 32 * width = {32 * width}")
    return ResNetConfig(
        image_size=_square(section, "image_size", 224),
        width=width,
        layers=(layers[0], layers[1], layers[2], layers[3]),
        heads=width * 32 // head_width,
    )


def text_config(model: OpenClipModel) -> TextConfig:
    """The text tower where it is OpenCLIP's own transformer."""
    section = model.text
    _refuse_features(section, PLAIN_TEXT, TEXT_KEYS)
    width, heads = section.integer("width", 512), section.integer("heads", 8)
    if width % heads:
        raise section.refuse("heads", f"a divisor of width = {width}")
    pool, class_token = section.values.get("pool_type", "argmax"), section.flag("embed_cls", False)
    if class_token and section.values.get("pad_id", PAD_ID) != PAD_ID:
        raise UnsupportedArchitectureError(str(section.refuse("pad_id", f"{PAD_ID} beside embed_cls")))
    return TextConfig(
        vocab_size=section.integer("vocab_size", 49408),
        context_length=section.integer("context_length", 77),
        width=width,
        layers=section.integer("layers", 12),
        heads=heads,
        mlp_width=_mlp_width(section, width),
        activation=_activation(section, model.quick_gelu),
        eps=_eps(section),
        eos_token_id=_eos_token_id(section) if pool == "eos" else LEGACY_EOS_TOKEN_ID,
        causal=not section.flag("no_causal_mask", False),
        pool="last" if pool == "last" or class_token else "end",
        projection_bias=section.flag("proj_bias", False),
        class_token=class_token,
    )


def _eos_token_id(section: Section) -> int:
    eos_token_id = section.integer("eos_id", 2)
    if eos_token_id == LEGACY_EOS_TOKEN_ID:  # which the canonical tower takes for "the highest id"
        raise UnsupportedArchitectureError(str(section.refuse("eos_id", "an end of text other than 2")))
    return eos_token_id


def _square(section: Section, key: str, default: int) -> int:
    """A length in pixels, or the same one twice."""
    value = section.values.get(key, default)
    if isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return Section(section.path, section.name, {key: value}).integer(key, default)


def _mlp_width(section: Section, width: int) -> int:
    return int(width * section.number("mlp_ratio", 4.0))  # truncated: "4.9231" stands for 8192 / 1664


def _eps(section: Section) -> float:
    options = _options(section, "norm_kwargs", "eps")
    return Section(section.path, f"{section.name}.norm_kwargs", options).number("eps", 1e-5)


def _activation(section: Section, quick_gelu: bool) -> Activation:
    if quick_gelu:
        if section.values.get("act_kwargs"):
            raise section.refuse("act_kwargs", "none beside quick_gelu")
        return "quick_gelu"
    approximate = _options(section, "act_kwargs", "approximate").get("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise section.refuse("act_kwargs", 'an approximate of "none" or "tanh"')
    return "gelu_tanh" if approximate == "tanh" else "gelu"


def _options(section: Section, key: str, known: str) -> Mapping[str, Any]:
    options = section.values.get(key) or {}
    if not isinstance(options, dict) or options.keys() - {known}:
        raise section.refuse(key, f"an object with nothing but {known}")
    return options


def _refuse_features(section: Section, plain: Mapping[str, tuple[Any, ...]], known: frozenset[str]) -> None:
    for key, accepted in plain.items():
        if section.values.get(key, accepted[0]) not in accepted:
            expected = " or ".join(repr(value) for value in accepted if value is not None) or "nothing"
            raise UnsupportedArchitectureError(str(section.refuse(key, expected)))
    _refuse_unknown(section, known)


def _refuse_unknown(section: Section, known: set[str] | frozenset[str]) -> None:
    for key in section.values:
        if key not in known and key not in WITHOUT_EFFECT and not key.startswith(("timm_", "hf_")):
            raise UnsupportedArchitectureError(str(section.refuse(key, "no such key; this version does not know it")))
