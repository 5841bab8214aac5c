"""The dense output: patches against transformers' own parts in float64, in INT8 against float32, and what has none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import CLIPImageProcessorPil, CLIPModel

import clipedge
from clipedge.bundle import open_bundle
from clipedge.calibration.scenes import render, sample_scene
from clipedge.cli import main
from clipedge.errors import UsageError
from clipedge.export import export
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.dense import check_dense
from clipedge.export.graphs import write_dense_graph
from clipedge.export.towers import ImageTower, build_image_tower, dense_tower

PARITY = 1e-5

DrawPixels = Callable[[int, int], NDArray[np.uint8]]
MakeClip = Callable[..., Path]
Embeds = NDArray[np.float32]


def image_tower(folder: Path) -> ImageTower:
    tower = build_image_tower(load_checkpoint(folder))
    assert isinstance(tower, ImageTower)
    return tower


def run(path: Path, pixels: NDArray[np.uint8]) -> Embeds:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    embeds: Embeds = session.run(["patch_embeds"], {"pixels": pixels})[0]
    return embeds


@torch.no_grad()
def transformers_patches(folder: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What each patch adds to the class token in the last layer by attention, normalised and projected.

    ``output_attentions`` are the weights; together the parts are what the layer's attention gives the class token.
    """
    model = CLIPModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    processor = CLIPImageProcessorPil.from_pretrained(folder, do_resize=False, do_center_crop=False)
    values = processor(list(pixels), return_tensors="np", input_data_format="channels_last")["pixel_values"]
    vision = model.vision_model
    seen = vision(torch.from_numpy(values).double(), output_hidden_states=True, output_attentions=True)
    last = vision.encoder.layers[-1]
    weights = seen.attentions[-1][:, :, 0]  # (B, heads, tokens)
    normed = last.layer_norm1(seen.hidden_states[-2])
    value = last.self_attn.v_proj(normed).unflatten(-1, (weights.shape[1], -1))
    parts = (value * weights.transpose(1, 2)[..., None]).flatten(2)
    together = last.self_attn.out_proj(parts.sum(dim=1))
    torch.testing.assert_close(together, last.self_attn(normed)[0][:, 0], rtol=0, atol=1e-9)
    patches = last.self_attn.out_proj(parts * parts.shape[1])[:, 1:]
    embeds = model.visual_projection(vision.post_layernorm(patches))
    grid = round(embeds.shape[1] ** 0.5)
    return torch.nn.functional.normalize(embeds, dim=-1).unflatten(1, (grid, grid)).numpy()


def check_parity(folder: Path, workspace: Path, pixels: NDArray[np.uint8]) -> None:
    expected = transformers_patches(folder, pixels)
    tower = image_tower(folder)
    write_dense_graph(tower, workspace / "dense.onnx")
    with torch.inference_mode():
        reference = dense_tower(tower)(torch.from_numpy(pixels)).numpy()
    assert np.abs(expected - expected.mean(axis=(0, 1, 2))).max() > 1e3 * PARITY
    for found in (run(workspace / "dense.onnx", pixels), reference):
        assert found.shape == expected.shape and found.dtype == np.float32
        assert np.abs(found - expected).max() <= PARITY


def test_patches_are_those_of_transformers(tiny_clip: Path, tmp_path: Path, draw_pixels: DrawPixels) -> None:
    check_parity(tiny_clip, tmp_path, draw_pixels(5, load_checkpoint(tiny_clip).image.image_size))


def test_patches_of_the_demonstration_checkpoint(tmp_path: Path, draw_pixels: DrawPixels) -> None:
    check_parity(DEMO_CHECKPOINT, tmp_path, draw_pixels(5, 64))


@pytest.mark.slow
def test_patches_of_a_real_architecture(vit_b: Path, tmp_path: Path, draw_pixels: DrawPixels) -> None:
    check_parity(vit_b, tmp_path, draw_pixels(2, 224))


def test_a_patch_does_not_depend_on_its_batch(make_clip: MakeClip, tmp_path: Path, draw_pixels: DrawPixels) -> None:
    write_dense_graph(image_tower(make_clip()), tmp_path / "dense.onnx")
    pixels = draw_pixels(7, 24)
    one_by_one = np.concatenate([run(tmp_path / "dense.onnx", pixels[i : i + 1]) for i in range(7)])
    for batch in (2, 7):
        assert np.abs(run(tmp_path / "dense.onnx", pixels[:batch]) - one_by_one[:batch]).max() <= 1e-6


def test_rows_and_columns_are_those_of_the_picture(
    make_clip: MakeClip, tmp_path: Path, draw_pixels: DrawPixels
) -> None:
    """With a single block a patch's values have seen no other patch: a change elsewhere moves an embedding little."""
    write_dense_graph(image_tower(make_clip(image={"num_hidden_layers": 1})), tmp_path / "dense.onnx")
    pixels = draw_pixels(1, 24)
    changed = pixels.copy()
    changed[0, 8:16, 16:24] = 255 - changed[0, 8:16, 16:24]
    moved = np.abs(run(tmp_path / "dense.onnx", changed) - run(tmp_path / "dense.onnx", pixels)).max(axis=-1)[0]
    size = 24 // len(moved)
    inside = np.zeros(moved.shape, bool)
    inside[8 // size : 16 // size, 16 // size : 24 // size] = True
    assert moved[inside].min() > 2 * moved[~inside].max()


def test_both_precisions_are_in_the_bundle_and_proven(demo_bundle_dense: Path) -> None:
    manifest = open_bundle(demo_bundle_dense).manifest
    dense = {variant.precision: variant for variant in manifest.variants if variant.tower == "dense"}
    assert {kind: variant.files[0].path for kind, variant in dense.items()} == {
        "int8": "dense.int8.x86.onnx",
        "fp32": "dense.fp32.onnx",
    }
    for variant in dense.values():
        assert variant.outputs[0].shape == ("batch", 8, 8, 128)
        assert variant.proof is not None and variant.proof.samples == 32 * 64
    assert dense["fp32"].proof.p1_centred_cosine > 0.99999
    report = json.loads((demo_bundle_dense / "report.json").read_text())
    parity = report["towers"]["dense"]["parity"]
    assert parity["samples"] == 32 * 64 and parity["median_centred_cosine"] >= 0.985
    assert report["towers"]["dense"]["exported_bytes"] < 0.4 * report["towers"]["dense"]["source_bytes"]


def test_all_layers_but_the_last_ones_are_in_int8(demo_bundle_dense: Path) -> None:
    model = onnx.load(demo_bundle_dense / "dense.int8.x86.onnx")
    floats = {item.name for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    in_float = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in floats]
    assert in_float == ["blocks.3.attn.key_value", "blocks.3.attn.out", "projection"]
    assert sum(node.op_type == "Gemm" for node in model.graph.node) == 3 * 4 + 1


def test_int8_patches_are_near_those_of_float32(demo_bundle_dense: Path) -> None:
    pictures = [render(sample_scene("test", index, objects=2), 64, 64).picture for index in range(24)]
    exact, rounded = (
        clipedge.load(demo_bundle_dense, variant=name).encode_patches(pictures).reshape(-1, 128)
        for name in ("fp32", "int8.x86")
    )
    centred = [embeds - exact.mean(axis=0) for embeds in (exact, rounded)]
    cosines = (centred[0] * centred[1]).sum(axis=1) / np.prod([np.linalg.norm(c, axis=1) for c in centred], axis=0)
    assert np.median(cosines) > 0.985


def test_a_bundle_without_patches_is_as_it_was(demo_bundle: Path) -> None:
    """Readers from before there were patches read it."""
    assert "dense" not in (demo_bundle / "clipedge.json").read_text()
    assert not list(demo_bundle.glob("dense*"))


def test_what_pools_no_class_token_is_refused(make_siglip: MakeClip, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'pools by attention \("map"\); export it without'):
        export(make_siglip(), tmp_path / "bundle", precision="fp32", dense=True)
    assert not (tmp_path / "bundle").exists()


def test_patches_that_leave_a_border_are_refused() -> None:
    checkpoint = load_checkpoint(DEMO_CHECKPOINT)
    odd = dataclasses.replace(checkpoint, image=dataclasses.replace(checkpoint.image, patch_size=12))  # type: ignore[type-var]
    with pytest.raises(UsageError, match="patches of 12 pixels, which do not cover its 64"):
        check_dense(odd, "bundle")


def test_the_hubs_layout_has_no_place_for_patches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--precision", "fp32", "--dense", "--layout", "huggingface"]
    assert main(["export", "--output", str(tmp_path / "new"), *options]) == 2
    assert "--dense makes a file that the layout huggingface has no name for" in capsys.readouterr().err
