"""SigLIP folders against transformers' SiglipModel, from a picture's bytes and a text's characters to probabilities."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import clipedge
from clipedge.calibration import scenes
from clipedge.errors import CheckpointError
from clipedge.export import export
from clipedge.export.checkpoints import Checkpoint, load_checkpoint
from clipedge.export.graphs import write_image_graph, write_text_graph
from clipedge.export.report import Report
from clipedge.export.towers import build_image_tower, build_text_tower, simplify
from clipedge.export.towers.pooling import FoldedQueryAttention
from clipedge.text import TruncatedTextWarning

PARITY = 1e-5
EXACT = 1e-12

Config = dict[str, Any]
DrawPixels = Callable[[int, int], NDArray[np.uint8]]
MakeSiglip = Callable[..., Path]

VARIETIES: dict[str, tuple[Config, Config]] = {
    "plain": ({}, {}),
    "widths-differ": ({"hidden_size": 24, "num_attention_heads": 3, "projection_size": 32}, {}),
    "gelu": ({"hidden_act": "gelu"}, {"hidden_act": "gelu", "layer_norm_eps": 1e-3}),
    "edge": (
        {},
        {"image_size": 29, "num_attention_heads": 2},
    ),  # no patch covers the last 5 pixels
    "one-patch": ({}, {"image_size": 8}),
}
TEXTS = ["", "a photo of a cat", "A Photo, of a CAT!", "the quick brown fox jumps over 12345 red circles " * 3]


@pytest.fixture(scope="session", params=VARIETIES)
def siglip(request: pytest.FixtureRequest, make_siglip: MakeSiglip) -> Path:
    return make_siglip(*VARIETIES[request.param])


@pytest.fixture
def checkpoint(siglip: Path) -> Checkpoint:
    return load_checkpoint(siglip)


@pytest.fixture
def pixels(checkpoint: Checkpoint, draw_pixels: DrawPixels) -> torch.Tensor:
    return torch.from_numpy(draw_pixels(6, checkpoint.image.image_size))


@pytest.fixture
def input_ids(checkpoint: Checkpoint) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(checkpoint.text.vocab_size, (6, checkpoint.text.context_length), generator=generator)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@torch.no_grad()
def test_towers_equal_transformers(
    siglip: Path, checkpoint: Checkpoint, pixels: torch.Tensor, input_ids: torch.Tensor
) -> None:
    """In float64. The query and the bias of the patches were projected and added beforehand, and rounded to float32."""
    model = SiglipModel.from_pretrained(siglip).double().eval()
    values = ((pixels.double() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)
    expected = model(pixel_values=values, input_ids=input_ids)
    image = build_image_tower(checkpoint).double()(pixels)
    text = build_text_tower(checkpoint).double()(input_ids)
    assert distance(image, expected.image_embeds) < 1e-6
    assert distance(text, expected.text_embeds) < EXACT
    assert distance(image[:1].expand_as(image), image) > 0.1  # the pictures can be told apart
    logits = checkpoint.logit_scale * image @ text.T + checkpoint.logit_bias
    assert distance(logits, expected.logits_per_image) < 1e-4
    assert checkpoint.activation == "sigmoid"


STEPS: list[Callable[[Any], Any]] = [
    simplify.fold_image_embedding,
    simplify.fuse_qkv,
    simplify.fold_attention_scale,
    simplify.fold_norms,
    simplify.fold_attention_biases,
    simplify.fold_pooling,
    simplify.fold_query,
]


@torch.no_grad()
@pytest.mark.parametrize("count", range(1, len(STEPS) + 1), ids=[step.__name__ for step in STEPS])
def test_steps_are_exact(checkpoint: Checkpoint, pixels: torch.Tensor, count: int) -> None:
    """The step of the test's name, after those in front of it."""
    tower = build_image_tower(checkpoint).double()
    expected = tower(pixels)
    for step in STEPS[:count]:
        tower = step(tower)
    assert distance(tower(pixels), expected) < EXACT


@torch.no_grad()
def test_simplify_applies_every_step(checkpoint: Checkpoint, pixels: torch.Tensor, input_ids: torch.Tensor) -> None:
    image, text = build_image_tower(checkpoint).double(), build_text_tower(checkpoint).double()
    simple = simplify.simplify_image_tower(image)
    attn = simple.pooling.attn
    assert isinstance(attn, FoldedQueryAttention)
    assert attn.key_value.out_features == checkpoint.image.pool_heads + checkpoint.image.width
    assert attn.key_value.bias is None
    assert not simple.pooling.norm.elementwise_affine
    assert distance(simple(pixels), image(pixels)) < EXACT
    assert distance(simplify.simplify_text_tower(text)(input_ids), text(input_ids)) < EXACT


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures wider and higher than the model's, and smaller."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, (width, height) in enumerate([(64, 48), (40, 200), (12, 9), (400, 120), (24, 24)]):
        coarse = np.random.default_rng(index).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        fine.save(folder / f"{index}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def bundle(make_siglip: MakeSiglip, gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Report]:
    """A tiny SigLIP 2, its bundle in float32 and INT8, and the report."""
    workspace, folder = tmp_path_factory.mktemp("export"), make_siglip()
    shutil.copytree(gemma, folder, dirs_exist_ok=True)
    scenes.write_folder(workspace / "scenes", "calibration", 48)
    output = workspace / "bundle"
    return folder, output, export(folder, output, precision=("fp32", "int8"), calibration_data=workspace / "scenes")


@pytest.mark.slow
def test_from_bytes_and_texts_to_probabilities(bundle: tuple[Path, Path, Report], pictures: list[Path]) -> None:
    folder, output, _ = bundle
    clip = clipedge.load(output, variant="fp32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)
        found = clip.encode_image(pictures), clip.encode_text(TEXTS)
        probabilities = clip.classifier(TEXTS[1:], templates=["{}"]).predict_proba(pictures)
    *embeds, expected = origin_answers(folder, pictures)
    for ours, origin in zip((*found, probabilities), (*embeds, expected[:, 1:]), strict=True):
        assert np.abs(ours - origin).max() <= PARITY
        assert np.abs(origin - origin.mean(axis=0)).max() > 1e3 * PARITY  # they can be told apart


@torch.no_grad()
def origin_answers(folder: Path, pictures: list[Path]) -> tuple[NDArray[np.float32], ...]:
    """Embeddings of pictures and texts, and probabilities, by transformers' model, image processor and tokenizer."""
    model = SiglipModel.from_pretrained(folder).eval()
    processor, tokenizer = SiglipImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings
    values = processor([Image.open(path) for path in pictures], return_tensors="pt")
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    answer = model(pixel_values=values["pixel_values"], input_ids=tokens["input_ids"])
    found = answer.image_embeds, answer.text_embeds, answer.logits_per_image.sigmoid()
    return tuple(tensor.numpy() for tensor in found)


@pytest.mark.slow
def test_int8_passes_its_proof(bundle: tuple[Path, Path, Report]) -> None:
    _, output, report = bundle
    assert report.passed and all(other.passed for other in report.also)
    model = onnx.load(output / "image.int8.x86.onnx")
    quantized = {node.name for node in model.graph.node if node.op_type == "Gemm"}
    head = ("attn.key_value", "attn.out", "perceptron.fc1", "perceptron.fc2")
    assert quantized >= {f"pooling.{part}" for part in head}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "siglip2"}, "takes pictures of any shape .NaFlex.; expected 'siglip'"),
        ({"vision_config": {"vision_use_head": False}}, "vision_use_head: expected true: without its head"),
        ({"vision_config": {"patch_size": 32}}, "patch_size: expected at most image_size = 24"),
        ({"vision_config": {"num_channels": 1}}, "num_channels: expected 3"),
        ({"text_config": {"projection_size": 20}}, "projection_size: expected the image tower's hidden_size = 32"),
        ({"text_config": {"hidden_act": "relu"}}, "hidden_act: expected an activation this version knows"),
        (
            {"text_config": {"vocab_size": 421}},
            r"token_embedding.weight has the shape \[420, 32\]",
        ),
    ],
)
def test_other_configurations_are_refused(make_siglip: MakeSiglip, change: Config, message: str) -> None:
    path = make_siglip() / "config.json"
    document = json.loads(path.read_text())
    for key, value in change.items():
        document[key] = document[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path.parent)


def test_absent_tensors_are_refused_by_name(make_siglip: MakeSiglip) -> None:
    path = make_siglip() / "model.safetensors"
    tensors = load_file(path)
    del tensors["logit_bias"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="lack logit_bias"):
        load_checkpoint(path.parent)


@pytest.mark.parametrize(
    ("settings", "mean"),
    [
        ({"image_processor_type": "SiglipImageProcessor"}, 0.5),
        ({"image_processor_type": "SiglipImageProcessorFast", "size": {"height": 24, "width": 24}}, 0.5),
        ({"size": {"height": 24, "width": 24}, "image_mean": [0.4, 0.4, 0.4]}, 0.4),
    ],
)
def test_preprocessing_has_siglips_defaults(make_siglip: MakeSiglip, settings: Config, mean: float) -> None:
    size = settings.get("size", {"height": 224})["height"]
    folder = make_siglip(image={"image_size": size})
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    found = load_checkpoint(folder).preprocessing
    assert (found.resize, found.mean, found.std, found.height) == ("squash", (mean,) * 3, (0.5,) * 3, size)


@torch.no_grad()
@pytest.mark.slow
def test_graphs_of_the_real_configuration(make_siglip: MakeSiglip, tmp_path: Path, draw_pixels: DrawPixels) -> None:
    """SigLIP B/16-224, every default, two layers deep."""
    folder = make_siglip({"num_hidden_layers": 2}, {"num_hidden_layers": 2}, tiny=False)
    checkpoint, pixels = load_checkpoint(folder), draw_pixels(4, 224)
    input_ids = np.random.default_rng(2).integers(0, 32000, (4, 64))
    values = torch.from_numpy((pixels / np.float32(255) - np.float32(0.5)) / np.float32(0.5)).permute(0, 3, 1, 2)
    model = SiglipModel.from_pretrained(folder).eval()
    expected = model(pixel_values=values, input_ids=torch.from_numpy(input_ids))
    write_image_graph(build_image_tower(checkpoint), tmp_path / "image.onnx")
    write_text_graph(build_text_tower(checkpoint), tmp_path / "text.onnx")
    for name, inputs, origin in (
        ("image", pixels, expected.image_embeds.numpy()),
        ("text", input_ids, expected.text_embeds.numpy()),
    ):
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: inputs})
        assert np.abs(found - origin).max() <= PARITY
        assert np.abs(origin - origin.mean(axis=0)).max() > 1e3 * PARITY
