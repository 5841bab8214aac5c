"""MobileCLIP and MobileCLIP2 in OpenCLIP's layout against open_clip and timm, from picture bytes and texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file

from clipedge.export.checkpoints import Checkpoint, ModelSource, load_checkpoint
from clipedge.export.graphs import write_image_graph, write_text_graph
from clipedge.export.towers import build_image_tower, build_text_tower
from clipedge.images.pixels import preprocess

PARITY = 1e-5

AskOrigin = Callable[..., Path]
Array = npt.NDArray[Any]

# How open_clip prepares pictures for MobileCLIP, and for MobileCLIP2 up to B; for S3 and S4 with OpenAI's mean.
PREPROCESS = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}


def run(graph: Path, inputs: Array) -> Array:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (embeds,) = session.run(None, {session.get_inputs()[0].name: inputs})
    return embeds


def assert_parity(checkpoint: Checkpoint, folder: Path, workspace: Path) -> None:
    """Reference towers and graphs give what the origin gave for the folder's pictures and texts."""
    origin = load_file(folder / "origin.safetensors")
    pixels = preprocess(sorted(folder.glob("*.png")), checkpoint.preprocessing)
    image_tower, text_tower = build_image_tower(checkpoint), build_text_tower(checkpoint)
    write_image_graph(image_tower, workspace / "image.onnx")
    write_text_graph(text_tower, workspace / "text.onnx")
    for found, expected in (
        (image_tower(torch.from_numpy(pixels)).numpy(), origin["image_embeds"]),
        (run(workspace / "image.onnx", pixels), origin["image_embeds"]),
        (text_tower(torch.from_numpy(origin["input_ids"])).numpy(), origin["text_embeds"]),
        (run(workspace / "text.onnx", origin["input_ids"]), origin["text_embeds"]),
    ):
        assert np.abs(expected - expected.mean(axis=0)).max() > 1e3 * PARITY  # the inputs can be told apart
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= PARITY


@pytest.mark.slow
def test_s0_as_trained_and_with_its_branches_summed(ask_origin: AskOrigin, tmp_path: Path) -> None:
    """The sums are timm's. A bare state dict is prepared as its architecture wants it."""
    folder = ask_origin(tmp_path / "origin", "MobileCLIP2-S0", preprocess=PREPROCESS, reparameterized=True)
    trained = load_checkpoint(folder)
    assert_parity(trained, folder, tmp_path)
    summed = load_checkpoint(ModelSource(str(folder / "reparameterized.pt"), arch="MobileCLIP2-S0"))
    assert summed.preprocessing == trained.preprocessing
    assert summed.image_weights.keys() == trained.image_weights.keys()
    for name, weight in summed.image_weights.items():
        torch.testing.assert_close(weight, trained.image_weights[name], rtol=1e-5, atol=1e-5)
    for name, weight in summed.text_weights.items():
        torch.testing.assert_close(weight, trained.text_weights[name], rtol=0, atol=0)
    assert_parity(summed, folder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "arch"), [("MobileCLIP2-S2", "mobileclip_s2"), ("MobileCLIP-B", "mobileclip_b")])
def test_apples_file_gives_what_open_clip_makes_of_it(
    model: str, arch: str, ask_origin: AskOrigin, tmp_path: Path
) -> None:
    """S2 of both generations is the same model. Of B the answers of OpenCLIP's folder are compared: timm's norms have
    another epsilon than Apple's."""
    folder = ask_origin(tmp_path / "origin", model, preprocess=PREPROCESS, apple=True)
    openclip = load_checkpoint(folder)
    apple = load_checkpoint(ModelSource(str(folder / "apple.pt"), arch=arch))
    assert load_checkpoint(folder / "apple.pt").space_id == apple.space_id  # the tensors tell the architecture
    assert_parity(apple if arch == "mobileclip_s2" else openclip, folder, tmp_path)
    assert apple.preprocessing == openclip.preprocessing
    assert apple.tokenizer_json == openclip.tokenizer_json
    assert apple.logit_scale == openclip.logit_scale
    assert apple.license == "apple-amlr"
    for found, expected in ((apple.image_weights, openclip.image_weights), (apple.text_weights, openclip.text_weights)):
        assert expected.keys() - found.keys() <= {"projection.bias"}
        for name, weight in found.items():
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=0)
