"""Image towers that open_clip builds and ClipEdge traces, exported where open_clip can be imported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

import clipedge
from clipedge.errors import MissingDependencyError
from clipedge.export.checkpoints import load_checkpoint

AskOrigin = Callable[..., Path]
ExportAtOrigin = Callable[..., None]

TOLERANCE = 1e-5
SMALL_TEXT = {"width": 64, "heads": 2, "layers": 2}


@pytest.fixture(scope="module")
def convnext(ask_origin: AskOrigin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenCLIP's ConvNeXt layout with timm's smallest of that family."""
    image = {"timm_model_name": "convnext_atto", "image_size": 64}
    changes = {"embed_dim": 64, "vision_cfg": image, "text_cfg": SMALL_TEXT}
    return ask_origin(tmp_path_factory.mktemp("convnext"), "convnext_base", changes=changes)


@pytest.fixture(scope="module")
def bundle(convnext: Path, export_at_origin: ExportAtOrigin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundles") / "convnext"
    export_at_origin(convnext, output, "--precision", "fp32,int8", "--calibration-data", "scenes")
    return output


@pytest.mark.slow
def test_convnext_gives_the_origins_embeddings(convnext: Path, bundle: Path) -> None:
    origin = load_file(convnext / "origin.safetensors")
    clip = clipedge.load(bundle, variant="fp32")
    found = clip.encode_image(sorted(convnext.glob("*.png")))
    assert np.abs(found - origin["image_embeds"]).max() < TOLERANCE
    assert np.abs(found - found.mean(axis=0)).max() > 1000 * TOLERANCE
    texts = json.loads((convnext / "job.json").read_text())["texts"]
    with pytest.warns(clipedge.text.TruncatedTextWarning):
        assert np.abs(clip.encode_text(texts) - origin["text_embeds"]).max() < TOLERANCE


@pytest.mark.slow
def test_convnext_in_int8_passes_the_proof(bundle: Path) -> None:
    report = json.loads((bundle / "report.int8.x86.json").read_text())
    assert report["passed"] and not report["failures"]
    graph = onnx.load(bundle / "image.int8.x86.onnx").graph
    products = [node.name for node in graph.node if node.op_type == "Gemm"]
    assert len([name for name in products if ".mlp.fc" in name]) == 2 * (2 + 2 + 6 + 2)


@pytest.mark.slow
def test_without_open_clip_the_error_says_what_to_install(convnext: Path) -> None:
    """Here, where torchvision is not."""
    with pytest.raises(MissingDependencyError, match=r"clipedge\[open-clip\]"):
        load_checkpoint(convnext)
