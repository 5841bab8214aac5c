"""``--layout huggingface``, read back by transformers' own conventions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from clipedge.bundle import replacing_folder
from clipedge.calibration import scenes
from clipedge.cli import main
from clipedge.errors import UsageError
from clipedge.export import export
from clipedge.export.checkpoints import DEMO_CHECKPOINT

TEXTS = ["a photo of a red circle", "two blue stars", ""]


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model in both precisions; as a user's own, which is proven on fewer scenes."""
    model, folder = tmp_path_factory.mktemp("model") / "my-clip", tmp_path_factory.mktemp("hub") / "folder"
    shutil.copytree(DEMO_CHECKPOINT, model, ignore=shutil.ignore_patterns("*.py"))
    options = ["--precision", "fp32,int8", "--calibration-data", "scenes", "--layout", "huggingface"]
    assert main(["export", str(model), *options, "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in scenes.labelled_pictures("test", 8, size=200)[0]]


def run(path: Path, feed: NDArray[np.generic]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: feed})[0])


def normalised(features: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(torch.nn.functional.normalize(features, dim=-1).numpy())


def test_the_folder_has_what_the_conventions_name(hub_folder: Path) -> None:
    assert sorted(path.name for path in (hub_folder / "onnx").iterdir()) == [
        "text_model.onnx", "text_model_quantized.onnx", "vision_model.onnx", "vision_model_quantized.onnx",
    ]  # fmt: skip
    assert {path.name for path in hub_folder.iterdir()} >= {
        "README.md", "clipedge-report.json", "config.json", "preprocessor_config.json", "tokenizer.json",
    }  # fmt: skip
    assert not (hub_folder / "clipedge.json").exists() and not list(hub_folder.glob("*.onnx"))
    vision = onnx.load(hub_folder / "onnx" / "vision_model.onnx")
    assert [(item.name, item.type.tensor_type.elem_type) for item in vision.graph.input] == [("pixel_values", 1)]


def test_pictures_through_transformers_processor(hub_folder: Path, pictures: list[Image.Image]) -> None:
    pixels = CLIPImageProcessorPil.from_pretrained(hub_folder)(pictures, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = CLIPModel.from_pretrained(DEMO_CHECKPOINT).float().get_image_features(pixels)
    expected = normalised(features.pooler_output)
    found = run(hub_folder / "onnx" / "vision_model.onnx", pixels.numpy())
    assert np.abs(found - expected).max() < 1e-5 < 1e-2 < np.abs(expected - expected.mean(axis=0)).max()
    rounded = run(hub_folder / "onnx" / "vision_model_quantized.onnx", pixels.numpy())
    assert np.median((rounded * expected).sum(axis=1)) > 0.985


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_texts_through_transformers_tokenizer(hub_folder: Path, padding: str) -> None:
    tokens = AutoTokenizer.from_pretrained(hub_folder)(TEXTS, padding=padding, return_tensors="pt")
    with torch.inference_mode():
        features = CLIPModel.from_pretrained(DEMO_CHECKPOINT).float().get_text_features(**tokens)
    found = run(hub_folder / "onnx" / "text_model.onnx", tokens["input_ids"].numpy())
    assert np.abs(found - normalised(features.pooler_output)).max() < 1e-5


def test_a_text_beyond_the_context_is_refused_by_the_engine(hub_folder: Path) -> None:
    with pytest.raises(Exception, match=r"input_ids|embedding|[Bb]roadcast|[Rr]eshape"):
        run(hub_folder / "onnx" / "text_model.onnx", np.ones((1, 500), np.int64))


def test_an_earlier_folder_may_be_replaced(hub_folder: Path, tmp_path: Path) -> None:
    earlier = Path(shutil.copytree(hub_folder, tmp_path / "folder"))
    assert json.loads((earlier / "clipedge-report.json").read_text())["passed"]
    with replacing_folder(earlier) as new:
        (new / "later").touch()
    assert [path.name for path in earlier.iterdir()] == ["later"]


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "tensorflow"},
        {"layout": "huggingface", "target": ["x86", "arm"]},
        {"layout": "huggingface", "target": "tensorrt", "precision": "fp32"},
    ],
)
def test_what_the_layout_has_no_place_for_is_refused(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"layout|name"):
        export(None, tmp_path / "folder", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
