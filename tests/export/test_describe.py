"""What is said of a checkpoint, against transformers' own model of it and against formulas worked out by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CLIPModel

from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.checkpoints.configs import FastVitConfig, ResNetConfig, TextConfig, VitConfig
from clipedge.export.describe import architecture, description_lines, model_facts
from clipedge.export.towers import build_image_tower
from clipedge.export.towers.fastvit import empty_fastvit
from clipedge.export.towers.resnet import empty_resnet
from clipedge.export.towers.vit import empty_vit


def vit_multiply_adds(config: VitConfig, embed_dim: int) -> int:
    """Patches, then per block four projections, scores and mixing over all tokens, and the perceptron."""
    tokens, width = config.tokens, config.width
    patches = (config.image_size // config.patch_size) ** 2 * width * 3 * config.patch_size**2
    return patches + config.layers * block_multiply_adds(tokens, width, config.mlp_width) + width * embed_dim


def block_multiply_adds(tokens: int, width: int, mlp_width: int) -> int:
    return 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * mlp_width


def test_towers_are_counted_exactly(tiny_clip: Path) -> None:
    checkpoint, model = load_checkpoint(tiny_clip), CLIPModel.from_pretrained(tiny_clip)
    facts, text = model_facts(checkpoint), checkpoint.text
    assert isinstance(checkpoint.image, VitConfig)
    assert isinstance(text, TextConfig)
    assert facts.image.multiply_adds == vit_multiply_adds(checkpoint.image, checkpoint.embed_dim)
    blocks = text.layers * block_multiply_adds(text.context_length, text.width, text.mlp_width)
    assert facts.text.multiply_adds == blocks + text.width * checkpoint.embed_dim
    assert facts.image.parameters == _parameters(model.vision_model, model.visual_projection)
    assert facts.text.parameters == _parameters(model.text_model, model.text_projection)


def _parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


RESNET = ResNetConfig(64, 8, (1, 1, 2, 1), 4)
FASTVIT = FastVitConfig(64, (32, 64), (1, 2), 3, 1, ())
SIGLIP = VitConfig(32, 8, 32, 2, 4, 80, "gelu", 1e-5, pool="map", class_token=False)


@pytest.mark.parametrize(
    ("config", "empty", "attention"),
    [
        (RESNET, empty_resnet, 2 * RESNET.tokens * RESNET.features),  # of one query
        (FASTVIT, empty_fastvit, 2 * 2 * FASTVIT.tokens**2 * 64),  # of the two blocks of the last stage
        (
            SIGLIP,
            empty_vit,
            2 * 2 * SIGLIP.tokens**2 * 32 + 2 * SIGLIP.tokens * 32,
        ),  # of two blocks and the head's query
    ],
    ids=["ResNet", "FastViT", "SigLIP"],
)
def test_other_families_are_counted_exactly(config: Any, empty: Callable[..., Any], attention: int) -> None:
    """Beside attention's scores and mixing, each output of a convolution or linear layer takes a row of weights."""
    demo = load_checkpoint(DEMO_CHECKPOINT)
    with torch.device("meta"):
        weights = empty(config, demo.preprocessing, demo.embed_dim).state_dict()
    checkpoint = dataclasses.replace(demo, image=config, image_weights=weights)
    tower, counted = build_image_tower(checkpoint), 0

    def count(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal counted
        counted += output.numel() * layer.get_parameter("weight")[0].numel()

    for module in tower.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    tower(torch.zeros((1, config.image_size, config.image_size, 3), dtype=torch.uint8, device="meta"))
    facts = model_facts(checkpoint).image
    assert facts.multiply_adds == counted + attention
    assert facts.parameters == sum(weight.numel() for weight in weights.values())


@pytest.mark.slow
def test_vit_b_is_as_large_as_it_is_published_to_be(vit_b: Path) -> None:
    """OpenCLIP counts with a profiler of its own and publishes millions of parameters and twice the billions of
    multiply-adds (docs/model_profile.csv)."""
    patch, parameters, flops = (32, 87.85, 8.82) if "32" in vit_b.name else (16, 86.19, 35.13)
    facts = model_facts(load_checkpoint(vit_b))
    assert facts.image.architecture == f"ViT-B/{patch}, 224 pixels"
    assert facts.image.parameters / 1e6 == pytest.approx(parameters, abs=0.005)
    assert 2 * facts.image.multiply_adds / 1e9 == pytest.approx(flops, abs=0.005)
    assert facts.text.parameters / 1e6 == pytest.approx(63.43, abs=0.005)
    assert 2 * facts.text.multiply_adds / 1e9 == pytest.approx(5.96, abs=0.005)


def test_what_a_person_reads() -> None:
    facts = model_facts(load_checkpoint(DEMO_CHECKPOINT))
    lines = description_lines(dataclasses.replace(facts, revision="0123abcd"))
    assert lines[0] == "demo@0123abcd"
    text = "\n".join(lines[1:])
    for words in (
        "Hugging Face folder (clip)",
        "apache-2.0: any use",
        "4 layers of width 128, patches of 8, 64 pixels, gelu",
        "0.84 M parameters, 57.03 M multiply-adds",
        "2 layers of width 64, gelu",
        "32 tokens, vocabulary of 682, each token sees those before it, pooled at its end",
        "64 x 64, shorter side to 64, centre, bicubic",
        "0.4815 0.4578 0.4082, 0.2686 0.2613 0.2758",
        "128 numbers, space 218771e84c0a7061…",
        "softmax, scale 36.73, bias 0.00",
    ):
        assert words in text


def test_what_a_program_reads() -> None:
    facts = model_facts(load_checkpoint(DEMO_CHECKPOINT))
    document = json.loads(json.dumps(facts.to_dict()))
    assert document["license"] == {
        "id": "apache-2.0",
        "name": "permissive licence",
        "restricts": False,
        "terms": "any use, with its notice kept",
    }
    assert document["image"]["multiply_adds"] == facts.image.multiply_adds
    assert document["preprocessing"]["interpolation"] == "bicubic"


# ---- names of architectures ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class StarConfig:
    image_size: int
    points: int


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (VitConfig(336, 14, 1024, 24, 16, 4096, "quick_gelu", 1e-5), "ViT-L/14, 336 pixels"),
        (VitConfig(224, 16, 768, 12, 12, 3072, "gelu_tanh", 1e-6, pool="map"),
         "ViT-B/16, 224 pixels, pooled by attention"),
        (VitConfig(32, 8, 40, 3, 4, 80, "gelu", 1e-5),
         "vision transformer of 3 layers of width 40, patches of 8, 32 pixels"),
        (ResNetConfig(288, 80, (4, 6, 10, 6), 40), "RN50x4, 288 pixels, pooled by attention"),
        (ResNetConfig(64, 8, (1, 1, 2, 1), 4),
         "modified ResNet of width 8, blocks 1-1-2-1, 64 pixels, pooled by attention"),
        (FastVitConfig(256, (64, 128, 256, 512), (2, 6, 10, 2), 3, 1, (2, 3)),
         "FastViT of widths 64-128-256-512, blocks 2-6-10-2, 256 pixels"),
        (StarConfig(64, 5), "Star (image_size 64, points 5)"),
    ],
)  # fmt: skip
def test_an_architecture_in_words(config: object, expected: str) -> None:
    assert architecture(config) == expected
