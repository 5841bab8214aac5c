"""Hugging Face CLIP folders with seeded random weights, written by transformers itself; and scenes to train on."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, GemmaTokenizer, SiglipConfig, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from clipedge.calibration import scenes

Config = dict[str, Any]
MakeClip = Callable[..., Path]
MakeSiglip = Callable[..., Path]

TINY_TEXT: Config = {
    "hidden_size": 24,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 12,
    "vocab_size": 60,
    "bos_token_id": 58,
    "eos_token_id": 59,
    "pad_token_id": 0,
}
TINY_IMAGE: Config = {
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 8,
}

# What differs from the configuration above: text, image, projection_dim.
VARIETIES: dict[str, tuple[Config, Config, int]] = {
    "quick_gelu": ({}, {}, 20),
    "gelu": ({"hidden_act": "gelu"}, {"hidden_act": "gelu"}, 32),
    "activations-differ": ({"hidden_act": "gelu"}, {"hidden_act": "quick_gelu"}, 8),
    "large-eps": ({"layer_norm_eps": 1e-2}, {"layer_norm_eps": 1e-3}, 24),
    "legacy-eos": ({"eos_token_id": 2}, {}, 20),
    "odd-sizes": (
        {"num_attention_heads": 1, "max_position_embeddings": 5, "num_hidden_layers": 1},
        {"num_attention_heads": 8, "patch_size": 12, "num_hidden_layers": 1, "intermediate_size": 33},
        7,
    ),
}

SIGLIP_TEXT: Config = {
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
    "vocab_size": 420,
}
SIGLIP_IMAGE: Config = {
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 8,
}

# CLIP ViT-B, as transformers' defaults have it.
VIT_B_IMAGE: Config = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
}

# CLIP ViT-L/14, as openai/clip-vit-large-patch14 has it.
VIT_L_IMAGE: Config = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}
VIT_L_TEXT: Config = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}


def write_clip(folder: Path, text: Config, image: Config, projection_dim: int = 20, seed: int = 0) -> Path:
    """Save a CLIPModel with random weights as transformers does, and an image processor's settings."""
    config = CLIPConfig(text_config=text, vision_config=image, projection_dim=projection_dim)
    with torch.device("meta"):
        model = CLIPModel(config)
    model.to_empty(device="cpu")
    randomise(model, seed)
    model.save_pretrained(folder)
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": image["image_size"]},
        "crop_size": {"height": image["image_size"], "width": image["image_size"]},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def randomise(model: CLIPModel, seed: int) -> None:
    """Fill every weight so that nothing is neutral and activations keep their size through the layers.

    transformers' own initialisation would hide faults: its biases are zero, its gains one, and its weights so
    small that all inputs get nearly the same embedding.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.state_dict().items():
        noise = torch.randn(weight.shape, generator=generator)
        if name == "logit_scale":
            noise = torch.tensor(math.log(60.0))
        elif name.endswith("bias"):
            noise *= 0.1
        elif "norm" in name:
            noise = 1 + 0.3 * noise
        elif weight.ndim > 1 and "position" not in name and "token" not in name:
            noise /= math.sqrt(weight[0].numel())
        weight.copy_(noise)


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """Write a tiny CLIP; ``text`` and ``image`` change fields of its configuration."""

    def make(text: Config | None = None, image: Config | None = None, **changes: Any) -> Path:
        folder = tmp_path / f"clip-{len(list(tmp_path.iterdir()))}"
        return write_clip(folder, TINY_TEXT | (text or {}), TINY_IMAGE | (image or {}), **changes)

    return make


@pytest.fixture(scope="session", params=VARIETIES)
def tiny_clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP of each variety."""
    text, image, projection_dim = VARIETIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return write_clip(folder, TINY_TEXT | text, TINY_IMAGE | image, projection_dim)


@pytest.fixture(scope="session", params=[32, 16], ids=["ViT-B-32", "ViT-B-16"])
def vit_b(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """CLIP with the real configuration of ViT-B/32 and ViT-B/16 (600 MB each)."""
    folder = tmp_path_factory.mktemp(f"vit-b-{request.param}")
    yield write_clip(folder, {"vocab_size": 49408}, VIT_B_IMAGE | {"patch_size": request.param}, 512)
    shutil.rmtree(folder)


@pytest.fixture(scope="session", params=[224, 336], ids=["ViT-L-14", "ViT-L-14-336"])
def vit_l(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """CLIP with the real image tower of ViT-L/14, 224 and 336 pixels; with 224 the real text tower, too (1.7 GB)."""
    folder = tmp_path_factory.mktemp(f"vit-l-{request.param}")
    text = VIT_L_TEXT if request.param == 224 else TINY_TEXT
    yield write_clip(folder, text, VIT_L_IMAGE | {"image_size": request.param}, 768)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def draw_pixels() -> Callable[[int, int], NDArray[np.uint8]]:
    """(count, size) -> uint8 (count, size, size, 3): soft blobs under noise, black and white among them."""

    def draw(count: int, size: int) -> NDArray[np.uint8]:
        generator = np.random.default_rng(7)
        coarse = generator.uniform(-60, 315, (count, 4, 4, 3))
        pixels = coarse.repeat(-(-size // 4), axis=1).repeat(-(-size // 4), axis=2)[:, :size, :size]
        pixels = pixels + generator.normal(0, 20, pixels.shape)
        return pixels.clip(0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def draw_texts() -> Callable[[int, int, int], NDArray[np.int64]]:
    """(count, length, vocabulary) -> int64 (count, length): texts that end early, late, repeatedly, and never.

    The end token is the vocabulary's last; what follows it is zero or more end tokens.
    """

    def draw(count: int, length: int, vocabulary: int) -> NDArray[np.int64]:
        generator = np.random.default_rng(8)
        texts = generator.integers(3, vocabulary - 1, (count, length))
        for index in range(1, count):  # the first never ends
            end = 1 + index % (length - 1)
            texts[index, end:] = 0 if index % 2 else vocabulary - 1
            texts[index, end] = vocabulary - 1
        return texts

    return draw


def write_siglip(folder: Path, text: Config, image: Config, seed: int = 0) -> Path:
    """A SiglipModel with random weights, as transformers writes it, with its image processor."""
    config = SiglipConfig(text_config=text, vision_config=image)
    with torch.device("meta"):
        model = SiglipModel(config)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.state_dict().items():
        noise = torch.randn(weight.shape, generator=generator)
        if name.startswith("logit"):
            noise = torch.tensor([3.0 if name == "logit_scale" else -4.0])
        elif name.endswith("bias"):
            noise *= 0.1
        elif "norm" in name:
            noise = 1 + 0.3 * noise
        elif weight.ndim > 1 and "position" not in name and "token" not in name and "probe" not in name:
            noise /= np.sqrt(weight[0].numel())
        weight.copy_(noise)
    model.save_pretrained(folder)
    size = {"height": image.get("image_size", 224), "width": image.get("image_size", 224)}
    SiglipImageProcessorPil(size=size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_siglip(tmp_path_factory: pytest.TempPathFactory) -> MakeSiglip:
    """Write a SigLIP; ``text`` and ``image`` change fields of a tiny configuration, or else of transformers' own."""

    def make(text: Config | None = None, image: Config | None = None, tiny: bool = True) -> Path:
        base_text, base_image = (SIGLIP_TEXT, SIGLIP_IMAGE) if tiny else ({}, {})
        return write_siglip(tmp_path_factory.mktemp("siglip"), base_text | (text or {}), base_image | (image or {}))

    return make


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small tokenizer of Gemma's kind, as SigLIP 2 has it: no start token, an end, padded behind."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trained.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    trained.train_from_iterator(["a photo of a cat, a photo of a dog", "red circles above blue squares 12345"], trainer)
    document = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in document["merges"]]
    tokenizer = GemmaTokenizer(
        vocab=document["vocab"], merges=merges, padding_side="right", add_bos_token=False, add_eos_token=True
    )
    folder = tmp_path_factory.mktemp("gemma")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def write_pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write scenes, their pixels divided by ``darker``, as PNG files, listed with two captions each in a table."""

    def write(chosen: Sequence[scenes.Scene], darker: int = 1) -> Path:
        table = tmp_path_factory.mktemp("pairs") / "pairs.csv"
        rows = [["path", "caption"]]
        for index, scene in enumerate(chosen):
            Image.fromarray(scenes.render(scene, 72, 64).picture // darker).save(table.with_name(f"{index}.png"))
            rows += [[f"{index}.png", caption] for caption in scene.captions[:2]]
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        return table

    return write


@pytest.fixture(scope="session")
def pairs(write_pairs: Callable[..., Path]) -> Path:
    """64 captioned scenes. Not to be changed."""
    return write_pairs([scenes.sample_scene("train", index) for index in range(64)])


@pytest.fixture(scope="session")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 labelled scenes, a folder for each class. Not to be changed."""
    folder = tmp_path_factory.mktemp("exam")
    scenes.write_folder(folder, "validation", 48, width=64, height=64, by_label=True)
    return folder


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[int], Path]:
    """Write so many different pictures without captions to a folder."""

    def write(count: int) -> Path:
        folder = tmp_path / "pictures"
        scenes.write_folder(folder, "train", count, width=64, height=64)
        return folder

    return write
