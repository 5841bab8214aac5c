"""The weights of a MobileCLIP of open_clip under the names of Apple's own files; used by ``worker.py``.

Written the other way round than ``open_clip.convert``, which has to understand the result.
"""

from __future__ import annotations

import re

import torch

# Regular expressions over names in open_clip, and what Apple has instead; in this order.
TEXT = (
    (r"^text\.token_embedding", "text_encoder.embedding_layer"),
    (r"^text\.positional_embedding", "text_encoder.positional_embedding.pos_embed.pos_embed"),
    (r"^text\.ln_final", "text_encoder.final_layer_norm"),
    (r"^text\.text_projection", "text_encoder.projection_layer"),
    (r"^text\.transformer\.resblocks", "text_encoder.transformer"),
    (r"\.ln_1\.", ".pre_norm_mha.0."),
    (r"\.attn\.in_proj_", ".pre_norm_mha.1.qkv_proj."),
    (r"\.attn\.out_proj\.", ".pre_norm_mha.1.out_proj."),
    (r"\.ln_2\.", ".pre_norm_ffn.0."),
    (r"\.mlp\.c_fc\.", ".pre_norm_ffn.1."),
    (r"\.mlp\.c_proj\.", ".pre_norm_ffn.4."),
)
FASTVIT = (
    (r"^visual\.trunk", "image_encoder.model"),
    (r"\.final_conv\.se\.fc1", ".final_conv.se.reduce"),
    (r"\.final_conv\.se\.fc2", ".final_conv.se.expand"),
    (r"\.final_conv\.", ".conv_exp."),
    (r"\.stem\.", ".patch_embed."),
    (r"\.conv_kxk\.", ".rbr_conv."),
    (r"\.conv_scale\.", ".rbr_scale."),
    (r"\.identity\.", ".rbr_skip."),
    (r"\.large_conv\.", ".lkb_origin."),
    (r"\.mlp\.", ".convffn."),
    (r"\.(layer_scale\w*)\.gamma$", r".\1"),
    (r"\.stages\.1\.downsample", ".network.1"),
    (r"\.stages\.2\.downsample", ".network.3"),
    (r"\.stages\.3\.downsample", ".network.5"),
    (r"\.stages\.0\.blocks", ".network.0"),
    (r"\.stages\.1\.blocks", ".network.2"),
    (r"\.stages\.2\.blocks", ".network.4"),
    (r"\.stages\.3\.pos_emb\.pos_enc", ".network.6.pe"),
    (r"\.stages\.3\.blocks", ".network.7"),
    (r"\.head\.fc\.weight", ".head.proj"),
)
CONV_STEM_VIT = (
    (r"^visual\.trunk", "image_encoder.model"),
    (r"\.patch_embed\.backbone\.(\d)\.conv\.", r".patch_emb.\1.block.conv."),
    (r"\.patch_embed\.backbone\.(\d)\.bn\.", r".patch_emb.\1.block.norm."),
    (r"\.model\.pos_embed$", ".model.pos_embed.pos_embed.pos_embed"),
    (r"\.blocks\.(\d+)\.norm1\.", r".transformer.\1.pre_norm_mha.0."),
    (r"\.blocks\.(\d+)\.attn\.qkv\.", r".transformer.\1.pre_norm_mha.1.qkv_proj."),
    (r"\.blocks\.(\d+)\.attn\.proj\.", r".transformer.\1.pre_norm_mha.1.out_proj."),
    (r"\.blocks\.(\d+)\.norm2\.", r".transformer.\1.pre_norm_ffn.0."),
    (r"\.blocks\.(\d+)\.mlp\.fc1\.", r".transformer.\1.pre_norm_ffn.1."),
    (r"\.blocks\.(\d+)\.mlp\.fc2\.", r".transformer.\1.pre_norm_ffn.4."),
    (r"\.model\.norm\.", ".model.post_transformer_norm."),
    (r"\.head\.weight", ".classifier.proj"),
)


def apple_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's state dict with Apple's names and shapes. The bias of the image projection, which Apple does not
    have, must be zero."""
    rules = (*TEXT, *(FASTVIT if "visual.trunk.head.fc.weight" in state else CONV_STEM_VIT))
    renamed = {}
    for name, tensor in state.items():
        if name in ("visual.trunk.head.fc.bias", "visual.trunk.head.bias"):
            assert not tensor.any()
            continue
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        if name.endswith(("head.proj", "classifier.proj")):
            tensor = tensor.T
        elif name.endswith("pos_embed.pos_embed"):
            tensor = tensor.reshape(1, 1, *tensor.shape[-2:])
        renamed[name] = tensor.contiguous()
    return renamed
