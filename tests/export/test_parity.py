"""From a picture's bytes and a text's characters to embeddings: our bundle against transformers, nothing in between."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import clipedge
from clipedge.calibration import scenes
from clipedge.calibration.texts import everyday_captions
from clipedge.export import export
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.graphs import write_image_graph, write_text_graph
from clipedge.export.towers import build_image_tower, build_text_tower
from clipedge.images.pixels import preprocess

TOLERANCE = 5e-6


def picture(width: int, height: int, mode: str = "RGB", file_format: str = "PNG") -> bytes:
    """A smooth random picture with noise, encoded; its content depends on its size and mode."""
    rng = np.random.default_rng([width, height, *mode.encode()])
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8), "RGBA")
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    pixels = np.clip(pixels + rng.integers(-12, 13, pixels.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    image = image if mode == "RGBA" else image.convert("RGB").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()


PICTURES = {
    "portrait": picture(240, 320),
    "landscape": picture(640, 360, file_format="JPEG"),
    "1:20": picture(60, 1200),
    "4000 pixels": picture(4000, 3000, file_format="JPEG"),
    "grey": picture(300, 200, "L"),
    "RGBA": picture(200, 300, "RGBA"),
    "palette": picture(256, 256, "P"),
    "CMYK JPEG": picture(320, 240, "CMYK", "JPEG"),
    "small": picture(30, 20),
}


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal raw, and after both lost their own mean: nearly equal embeddings of all inputs would hide errors."""
    assert np.abs(found - expected).max() <= TOLERANCE
    assert np.abs((found - found.mean(axis=0)) - (expected - expected.mean(axis=0))).max() <= TOLERANCE
    # The comparison means something only if the inputs' embeddings differ by far more than the tolerance.
    assert np.abs(expected - expected.mean(axis=0)).max() > 1000 * TOLERANCE


def reference_images(checkpoint: Path) -> np.ndarray:
    model, processor = CLIPModel.from_pretrained(checkpoint).float(), CLIPImageProcessorPil.from_pretrained(checkpoint)
    embeds = []
    with torch.inference_mode():
        for data in PICTURES.values():
            pixels = processor(Image.open(io.BytesIO(data)), return_tensors="pt")["pixel_values"]
            pooled = model.vision_model(pixels).pooler_output
            embeds.append(torch.nn.functional.normalize(model.visual_projection(pooled), dim=-1))
    return torch.cat(embeds).numpy()


def test_demonstration_model_encodes_pictures_as_transformers_does(demo_bundle_fp32: Path) -> None:
    found = clipedge.load(demo_bundle_fp32).encode_image(list(PICTURES.values()))
    assert_equal(found, reference_images(DEMO_CHECKPOINT))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few pictures: here an export's proof is not the point, and a ViT-B/16 takes 35 GFLOP for each."""
    folder = tmp_path_factory.mktemp("photos")
    scenes.write_folder(folder, "calibration", 24)
    return folder


@pytest.mark.slow
def test_vit_b_encodes_pictures_as_transformers_does(vit_b: Path, photos: Path, tmp_path: Path) -> None:
    export(vit_b, tmp_path / "bundle", precision="fp32", calibration_data=photos, text=False)
    found = clipedge.load(tmp_path / "bundle").encode_image(list(PICTURES.values()))
    assert_equal(found, reference_images(vit_b))


@pytest.mark.slow
def test_vit_l_encodes_as_transformers_does(vit_l: Path, tmp_path: Path) -> None:
    """Graphs of 24 layers and 428 million parameters, without the export's proof, which would take minutes."""
    checkpoint = load_checkpoint(vit_l)
    model, processor = CLIPModel.from_pretrained(vit_l).eval(), CLIPImageProcessorPil.from_pretrained(vit_l)
    pictures = [PICTURES["portrait"], PICTURES["landscape"], PICTURES["grey"]]
    write_image_graph(build_image_tower(checkpoint), tmp_path / "image.onnx")
    found = run(tmp_path / "image.onnx", preprocess(pictures, checkpoint.preprocessing))
    opened = [Image.open(io.BytesIO(data)) for data in pictures]
    with torch.inference_mode():
        pooled = model.vision_model(processor(opened, return_tensors="pt")["pixel_values"]).pooler_output
        expected = torch.nn.functional.normalize(model.visual_projection(pooled), dim=-1).numpy()
    assert_equal(found, expected)

    tokens = np.random.default_rng(0).integers(0, checkpoint.text.eos_token_id, (3, checkpoint.text.context_length))
    tokens[[0, 1, 2], [2, 7, checkpoint.text.context_length - 1]] = checkpoint.text.eos_token_id
    write_text_graph(build_text_tower(checkpoint), tmp_path / "text.onnx")
    found = run(tmp_path / "text.onnx", tokens)
    with torch.inference_mode():
        pooled = model.text_model(input_ids=torch.from_numpy(tokens)).pooler_output
        expected = torch.nn.functional.normalize(model.text_projection(pooled), dim=-1).numpy()
    assert_equal(found, expected)


def run(path: Path, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    embeds: np.ndarray = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    return embeds


def test_demonstration_model_encodes_texts_as_transformers_does(demo_bundle_fp32: Path) -> None:
    texts = ["a photo of a red circle.", "", "  Two   BLUE stars ", "émoji 🙂 and ünïcode", *everyday_captions(40, 3)]
    model, tokenizer = (
        CLIPModel.from_pretrained(DEMO_CHECKPOINT).float(),
        AutoTokenizer.from_pretrained(DEMO_CHECKPOINT),
    )
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    with torch.inference_mode():
        pooled = model.text_model(**tokens).pooler_output
        expected = torch.nn.functional.normalize(model.text_projection(pooled), dim=-1).numpy()
    with pytest.warns(clipedge.text.TruncatedTextWarning):
        found = clipedge.load(demo_bundle_fp32).encode_text(texts)
    assert_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("vit_b", [32], indirect=True, ids=["ViT-B-32"])
def test_vit_b_32_image_tower_shrinks_to_a_quarter(vit_b: Path, photos: Path, tmp_path: Path) -> None:
    """INT8 weights are a quarter of float32's; scales, constants and the float projection may add 2 % of it."""
    report = export(vit_b, tmp_path / "bundle", calibration_data=photos, text=False)
    image = report.towers["image"]
    assert image.exported_bytes <= 0.27 * image.source_bytes
    assert image.exported_bytes == (tmp_path / "bundle" / "image.int8.x86.onnx").stat().st_size
