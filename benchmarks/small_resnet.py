"""A CLIP of demonstration size whose image tower is a ResNet, in OpenCLIP's layout.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 2.4: the modified
ResNet (a stem of three convolutions, average pooling in front of every stride, attention in place of the last
pooling), trained with BatchNorm over the batch, and a causal text transformer. The modules have OpenCLIP's names, so
that ``state_dict`` is such a file. Image tower: 64 pixels, width 16, two blocks in each stage. Text tower: width 64,
2 blocks, pooled at the end of the text.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn
from train_small import CONTEXT_LENGTH, IMAGE_SIZE, Trainee

from clipedge.export.demo.files import IMAGE_MEAN, IMAGE_STD
from clipedge.export.demo.tokenizer import END, train_tokenizer
from clipedge.export.demo.train import contrastive_loss, normalise

VOCAB_SIZE, EMBED_DIM = 1000, 128
WIDTH, LAYERS, HEAD_WIDTH = 16, (2, 2, 2, 2), 64
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 64, 2, 2
WEIGHTS = "open_clip_model.safetensors"


class Bottleneck(nn.Module):
    """A residual block; its output has four times ``width`` channels."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        nn.init.zeros_(self.bn3.weight)  # a block begins as the identity
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))
            if inputs != 4 * width
            else nn.Identity()
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.bn1(self.conv1(maps)))
        hidden = F.relu(self.bn2(self.conv2(hidden)))
        hidden = self.bn3(self.conv3(F.avg_pool2d(hidden, self.stride)))
        return F.relu(hidden + self.downsample(F.avg_pool2d(maps, self.stride)))


class AttentionPool(nn.Module):
    """Attention of the mean over the positions to itself and to all of them."""

    def __init__(self, positions: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(positions + 1, width) / width**0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, EMBED_DIM)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.positional_embedding
        query, key, value = (
            linear(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, source in ((self.q_proj, tokens[:, :1]), (self.k_proj, tokens), (self.v_proj, tokens))
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.c_proj(mixed[:, 0])  # type: ignore[no-any-return]


class ModifiedResNet(nn.Module):
    """Normalised pixels, float32 (N, 3, H, W), to embeddings (N, D)."""

    def __init__(self) -> None:
        super().__init__()
        stem = WIDTH // 2
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(stem)
        self.conv2, self.bn2 = nn.Conv2d(stem, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem)
        self.conv3, self.bn3 = nn.Conv2d(stem, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH)
        inputs = WIDTH
        for stage, blocks in enumerate(LAYERS):
            width, parts = WIDTH * 2**stage, []
            for block in range(blocks):
                parts.append(Bottleneck(inputs, width, stride=2 if stage and not block else 1))
                inputs = 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*parts))
        self.attnpool = AttentionPool((IMAGE_SIZE // 32) ** 2, inputs, inputs // HEAD_WIDTH)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        maps = F.relu(self.bn1(self.conv1(pixels)))
        maps = F.relu(self.bn2(self.conv2(maps)))
        maps = F.avg_pool2d(F.relu(self.bn3(self.conv3(maps))), 2)
        for stage in range(len(LAYERS)):
            maps = self.get_submodule(f"layer{stage + 1}")(maps)
        return self.attnpool(maps)  # type: ignore[no-any-return]


class TextBlock(nn.Module):
    """A residual attention block; no token sees a later one."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(TEXT_WIDTH), nn.LayerNorm(TEXT_WIDTH)
        self.attn = nn.MultiheadAttention(TEXT_WIDTH, TEXT_HEADS, batch_first=True)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(TEXT_WIDTH, 4 * TEXT_WIDTH), gelu=nn.GELU(), c_proj=nn.Linear(4 * TEXT_WIDTH, TEXT_WIDTH)
            )
        )

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        normed = self.ln_1(hidden)
        mixed, _ = self.attn(normed, normed, normed, attn_mask=mask, need_weights=False)
        hidden = hidden + mixed
        return hidden + self.mlp(self.ln_2(hidden))  # type: ignore[no-any-return]


class ResNetClip(nn.Module):
    """Both towers; parameters by OpenCLIP's names."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.visual = ModifiedResNet()
        self.token_embedding = nn.Embedding(vocab_size, TEXT_WIDTH)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(CONTEXT_LENGTH, TEXT_WIDTH))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList([TextBlock() for _ in range(TEXT_LAYERS)])
        self.ln_final = nn.LayerNorm(TEXT_WIDTH)
        self.text_projection = nn.Parameter(TEXT_WIDTH**-0.5 * torch.randn(TEXT_WIDTH, EMBED_DIM))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_text(self, token_ids: torch.Tensor) -> torch.Tensor:
        """int64 (N, L) to (N, D): what stands at the end of the text, the token with the highest number."""
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT_LENGTH)
        hidden = self.token_embedding(token_ids) + self.positional_embedding
        for block in self.transformer.resblocks:  # type: ignore[union-attr]
            hidden = block(hidden, mask)
        pooled = hidden[torch.arange(len(hidden)), token_ids.argmax(dim=1)]
        return self.ln_final(pooled) @ self.text_projection  # type: ignore[no-any-return]


def small_resnet(captions: Iterable[str]) -> Trainee:
    """A new model with random weights from torch's generator, and a tokenizer that is learned from captions."""
    tokenizer = train_tokenizer(captions, VOCAB_SIZE)
    tokenizer.enable_truncation(CONTEXT_LENGTH)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(END), pad_token=END, length=CONTEXT_LENGTH)
    model = ResNetClip(tokenizer.get_vocab_size()).train()

    def embed_images(pictures: NDArray[np.uint8]) -> torch.Tensor:
        return F.normalize(model.visual(normalise(pictures)), dim=-1)

    return Trainee(
        model=model,
        tokenizer=tokenizer,
        embed_images=embed_images,
        embed_texts=lambda token_ids: F.normalize(model.encode_text(token_ids), dim=-1),
        loss=lambda images, texts, token_ids: contrastive_loss(images, texts, model.logit_scale, token_ids),
        save=lambda folder: _save(model, tokenizer, folder),
    )


def _save(model: ResNetClip, tokenizer: Tokenizer, folder: Path) -> None:
    """An OpenCLIP folder, weights in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
    tokenizer.save(str(folder / "tokenizer.json"))
    vision = {"image_size": IMAGE_SIZE, "layers": LAYERS, "width": WIDTH, "head_width": HEAD_WIDTH, "patch_size": None}
    text = {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": tokenizer.get_vocab_size(),
        "width": TEXT_WIDTH,
        "heads": TEXT_HEADS,
        "layers": TEXT_LAYERS,
    }
    config = {
        "model_cfg": {"embed_dim": EMBED_DIM, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": IMAGE_MEAN, "std": IMAGE_STD},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
