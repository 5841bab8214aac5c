"""A model of OpenCLIP in the Hugging Face hub's conventions, read back by transformers: open_clip's own embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from safetensors.numpy import load_file
from transformers import AutoTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from clipedge.export import export

TOLERANCE = 1e-5


@pytest.mark.slow
def test_an_openclip_model_is_read_back_by_transformers(ask_origin: Callable[..., Path], tmp_path: Path) -> None:
    shallow = {"vision_cfg": {"width": 192, "layers": 2}, "text_cfg": {"width": 128, "heads": 2, "layers": 2}}
    source = ask_origin(tmp_path / "origin", "ViT-B-32", changes={"embed_dim": 64, **shallow})
    folder = tmp_path / "hub"
    export(source, folder, precision="fp32", layout="huggingface")
    origin = load_file(source / "origin.safetensors")

    pictures = [Image.open(path) for path in sorted(source.glob("*.png"))]
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="np")["pixel_values"]
    image = onnxruntime.InferenceSession(folder / "onnx" / "vision_model.onnx")
    assert np.abs(image.run(["image_embeds"], {"pixel_values": pixels})[0] - origin["image_embeds"]).max() < TOLERANCE

    texts = json.loads((source / "job.json").read_text())["texts"]
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="np")
    text = onnxruntime.InferenceSession(folder / "onnx" / "text_model.onnx")
    found = text.run(["text_embeds"], {"input_ids": tokens["input_ids"]})[0]
    assert np.abs(found - origin["text_embeds"]).max() < TOLERANCE
    config = json.loads((folder / "config.json").read_text())
    assert config["projection_dim"] == 64 and config["vision_config"]["hidden_size"] == 192
