"""Models without towers here, through the library that they come from: ChineseCLIP, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel, ChineseCLIPConfig, ChineseCLIPModel
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil

import clipedge
from clipedge.calibration import scenes
from clipedge.calibration.drawing import render
from clipedge.calibration.linears import linear_layers
from clipedge.errors import CheckpointError, MissingDependencyError
from clipedge.export import export
from clipedge.export.checkpoints import load_checkpoint
from clipedge.export.report import Report

TOLERANCE = 1e-5
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [*"一只猫狗的照片红色在桌上", *LETTERS, *(f"##{letter}" for letter in LETTERS), "photo", "of", "cat", ",", "."]
TEXTS = ["一只红色的猫", "a photo of a cat.", "dog", "", "a photo of a cat, " * 10]


@pytest.fixture(scope="session")
def chinese_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ChineseCLIP with seeded random weights, as transformers saves it, with BERT's vocabulary file."""
    folder = tmp_path_factory.mktemp("chinese-clip")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    text = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
    image = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = ChineseCLIPConfig(
        text_config={**text, "vocab_size": len(vocabulary), "max_position_embeddings": 40},
        vision_config={**image, "image_size": 24, "patch_size": 8},
        projection_dim=20,
    )
    model = ChineseCLIPModel(config)
    randomise(model)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    settings = {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}}
    settings |= {"image_processor_type": "ChineseCLIPImageProcessor", "image_mean": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def randomise(model: ChineseCLIPModel) -> None:
    """Fresh weights are so small that all inputs get nearly the same embedding, and norms neutral."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.state_dict().items():
        if not weight.is_floating_point():
            continue
        noise = torch.randn(weight.shape, generator=generator)
        if name == "logit_scale":
            noise = torch.tensor(math.log(60.0))
        elif name.endswith("bias"):
            noise *= 0.1
        elif "norm" in name.lower():
            noise = 1 + 0.3 * noise
        elif weight.ndim > 1 and "embeddings." not in name:
            noise /= math.sqrt(weight[0].numel())
        weight.copy_(noise)


@pytest.fixture(scope="session")
def exported(chinese_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A bundle with both precisions, and its report."""
    bundle = tmp_path_factory.mktemp("bundles") / "chinese-clip"
    return bundle, export(chinese_clip, bundle, precision=["fp32", "int8"], calibration_data="scenes")


@pytest.mark.slow
def test_pictures_equal_transformers(chinese_clip: Path, exported: tuple[Path, Report]) -> None:
    pictures = [
        Image.fromarray(render(scenes.labelled_scene("test", index)[0], width, height).picture)
        for index, (width, height) in enumerate([(320, 240), (90, 200), (30, 26), (64, 64)])
    ]
    processor = ChineseCLIPImageProcessorPil.from_pretrained(chinese_clip)
    with torch.inference_mode():
        features = ChineseCLIPModel.from_pretrained(chinese_clip).get_image_features(
            processor(pictures, return_tensors="pt")["pixel_values"]
        )
    expected = torch.nn.functional.normalize(features.pooler_output, dim=-1).numpy()
    found = clipedge.load(exported[0], variant="fp32").encode_image(pictures)
    assert np.abs(found - expected).max() < TOLERANCE
    assert np.abs(expected - expected.mean(axis=0)).max() > 1000 * TOLERANCE


@pytest.mark.slow
def test_texts_equal_transformers(chinese_clip: Path, exported: tuple[Path, Report]) -> None:
    """Each text alone and unpadded there, padded and masked here."""
    model, tokenizer = ChineseCLIPModel.from_pretrained(chinese_clip), AutoTokenizer.from_pretrained(chinese_clip)
    tokens = [tokenizer([text], truncation=True, max_length=40, return_tensors="pt") for text in TEXTS]
    with torch.inference_mode():
        features = torch.cat([model.get_text_features(**text).pooler_output for text in tokens])
    with pytest.warns(clipedge.text.TruncatedTextWarning):
        found = clipedge.load(exported[0], variant="fp32").encode_text(TEXTS)
    assert np.abs(found - torch.nn.functional.normalize(features, dim=-1).numpy()).max() < TOLERANCE


@pytest.mark.slow
def test_int8_passes_the_proof(exported: tuple[Path, Report]) -> None:
    bundle, report = exported
    assert report.passed and [found.precision for found in (report, *report.also)] == ["fp32", "int8"]
    assert not any(layer.in_float for layer in report.also[0].layers)
    for tower in ("image", "text"):
        graph = onnx.load(bundle / f"{tower}.int8.x86.onnx").graph
        floats = {item.name for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
        assert [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in floats] == [
            "projection"
        ]


@pytest.mark.slow
def test_graphs_have_the_form_of_all_others(exported: tuple[Path, Report]) -> None:
    for tower, block in (("image", "vision_model.encoder.layers.1"), ("text", "text_model.encoder.layer.1")):
        model = onnx.load(exported[0] / f"{tower}.fp32.onnx")
        assert model.ir_version <= 10 and [item.version for item in model.opset_import] == [19]
        layers = linear_layers(model)
        assert len(layers) == 12 and len({layer.weight for layer in layers}) == 12
        assert sum(block in layer.name for layer in layers) == 6 and all(layer.bias for layer in layers)
        assert not any(node.metadata_props for node in model.graph.node)  # which would name files of this machine


def test_what_is_read_of_a_folder(chinese_clip: Path) -> None:
    checkpoint = load_checkpoint(chinese_clip)
    assert checkpoint.logit_scale == pytest.approx(60.0) and checkpoint.activation == "softmax"
    assert checkpoint.preprocessing.shortest_edge == 28 and checkpoint.preprocessing.mean == (0.4, 0.5, 0.6)
    assert checkpoint.text.context_length == 40 and checkpoint.embed_dim == 20
    assert not any("text" in name for name in checkpoint.image_weights)
    assert not any("vision" in name for name in checkpoint.text_weights)


def test_weights_that_do_not_fit_are_refused_by_name(chinese_clip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(chinese_clip, tmp_path / "damaged"))
    weights = load_file(folder / "model.safetensors")
    removed = weights.pop("text_model.encoder.layer.1.output.dense.bias")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack text_model\.encoder\.layer\.1\.output\.dense\.bias"):
        load_checkpoint(folder)
    weights |= {"text_model.encoder.layer.1.output.dense.bias": removed, "extra": removed.clone()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="beyond those of the configuration extra"):
        load_checkpoint(folder)


def test_a_model_that_is_no_clip_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(vocab_size=9, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="BertModel of it, which is no CLIP"):
        load_checkpoint(tmp_path)


def test_a_library_that_is_missing_is_named(chinese_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"clipedge\[transformers\]"):
        load_checkpoint(chinese_clip)
