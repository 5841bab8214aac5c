"""Reading Hugging Face CLIP folders: as transformers reads them, and one clear line for what cannot be read."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints import load_checkpoint
from clipedge.export.checkpoints.huggingface.config import read_model_config
from clipedge.export.checkpoints.huggingface.preprocessing import read_preprocessing
from clipedge.export.checkpoints.tensors import hash_files

MakeClip = Callable[..., Path]

WEIGHTS = "model.safetensors"


@pytest.fixture
def clip(make_clip: MakeClip) -> Path:
    return make_clip()


def edit_json(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(document))


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)


def test_a_checkpoint_describes_its_model(clip: Path) -> None:
    (clip / "README.md").write_text('---\ntags:\n- clip\nlicense: "mit"  # as upstream\n---\n# A model\n')
    checkpoint = load_checkpoint(clip)
    assert (checkpoint.name, checkpoint.source.model) == (clip.name, str(clip))
    assert (checkpoint.embed_dim, checkpoint.image.tokens, checkpoint.text.context_length) == (20, 10, 12)
    assert checkpoint.logit_scale == pytest.approx(60.0)
    assert (checkpoint.logit_bias, checkpoint.activation, checkpoint.license) == (0.0, "softmax", "mit")
    assert checkpoint.source_sha256 == hash_files([clip / WEIGHTS])
    weights = [*checkpoint.image_weights.values(), *checkpoint.text_weights.values()]
    assert {weight.dtype for weight in weights} == {torch.float32}
    assert sum(weight.numel() for weight in weights) + 1 == CLIPModel.from_pretrained(clip).num_parameters()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"projection_dim": 64, "text_config": {"hidden_act": "gelu", "eos_token_id": 2}, "vision_config": None},
        {
            "vision_config": {"hidden_size": 1024, "num_attention_heads": 16, "layer_norm_eps": 1e-6},
            "vision_config_dict": {"image_size": 336, "patch_size": 14},
            "text_config": {"vocab_size": 100, "eos_token_id": 2, "num_hidden_layers": 3},
            "text_config_dict": {"num_hidden_layers": 5},
        },
        {"vision_config_dict": None, "text_config_dict": {"hidden_size": 640, "num_attention_heads": 10}},
    ],
    ids=["all-defaults", "some-fields", "old-style", "old-style-null"],
)
def test_configuration_as_transformers_reads_it(tmp_path: Path, document: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", **document}))
    expected = CLIPConfig.from_pretrained(tmp_path)
    config = read_model_config(tmp_path)
    assert config.embed_dim == expected.projection_dim
    for tower, theirs in ((config.image, expected.vision_config), (config.text, expected.text_config)):
        assert tower.width == theirs.hidden_size
        assert tower.layers == theirs.num_hidden_layers
        assert tower.heads == theirs.num_attention_heads
        assert tower.mlp_width == theirs.intermediate_size
        assert tower.activation == theirs.hidden_act
        assert tower.eps == theirs.layer_norm_eps
    vision, text = expected.vision_config, expected.text_config
    assert (config.image.image_size, config.image.patch_size) == (vision.image_size, vision.patch_size)
    assert config.text.vocab_size == text.vocab_size
    assert config.text.context_length == text.max_position_embeddings
    assert config.text.eos_token_id == text.eos_token_id
    assert config.text.pools_highest_id == (text.eos_token_id == 2)


def test_the_space_does_not_depend_on_the_files(make_clip: MakeClip, tmp_path: Path) -> None:
    """fp16 in one file; the same values as float32 in shards, with the index vectors of older transformers."""
    model = CLIPModel.from_pretrained(make_clip()).half()
    half, sharded = make_clip(), make_clip()
    model.save_pretrained(half)
    (sharded / WEIGHTS).unlink()
    model.float().save_pretrained(sharded, max_shard_size="20KB")
    shard = sorted(sharded.glob("model-*.safetensors"))[0]
    extra = {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    save_file(load_file(shard) | extra, shard)
    one, many = load_checkpoint(half), load_checkpoint(sharded)
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    assert one.space_id == many.space_id
    assert one.source_sha256 != many.source_sha256
    assert all(torch.equal(one.image_weights[name], many.image_weights[name]) for name in one.image_weights)


def test_the_space_depends_on_the_model(make_clip: MakeClip) -> None:
    folders = [
        make_clip(),
        make_clip(seed=1),
        make_clip({"hidden_act": "gelu"}),
        make_clip(image={"layer_norm_eps": 1e-6}),
        make_clip(image={"num_attention_heads": 8}),
        make_clip({"eos_token_id": 2}),
    ]
    assert len({load_checkpoint(folder).space_id for folder in folders}) == len(folders)
    assert load_checkpoint(folders[0]).space_id == load_checkpoint(make_clip()).space_id


def test_bfloat16_weights_are_upcast(clip: Path) -> None:
    expected = load_checkpoint(clip).image_weights["projection.weight"].bfloat16().float()
    CLIPModel.from_pretrained(clip).bfloat16().save_pretrained(clip)
    assert torch.equal(load_checkpoint(clip).image_weights["projection.weight"], expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 30, "crop_size": 24},
        {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "resample": 2},
        {"size": {"height": 24, "width": 24}, "do_center_crop": False, "image_mean": 0.5, "image_std": 0.25},
        {"size": 24, "crop_size": 24, "do_normalize": False, "do_rescale": None},
        {"size": 24, "crop_size": 24, "rescale_factor": 1 / 127.5, "image_mean": [1.0, 0.9, 0.8]},
        {"size": 24, "crop_size": 24, "do_rescale": False, "image_mean": [120.0, 110, 100], "image_std": [60.0] * 3},
    ],
    ids=["numbers", "objects", "squash", "no-normalize", "rescale-factor", "no-rescale"],
)
def test_preprocessing_as_transformers_does_it(clip: Path, settings: dict[str, Any]) -> None:
    (clip / "preprocessor_config.json").write_text(json.dumps(settings))
    found = read_preprocessing(clip, 24)
    processor = CLIPImageProcessorPil.from_pretrained(clip)
    size = processor.size
    assert (found.resize, found.shortest_edge) == (
        ("shortest-edge", size.shortest_edge) if size.shortest_edge else ("squash", size.height)
    )
    assert found.interpolation == {2: "bilinear", 3: "bicubic"}[int(processor.resample)]
    pixels = np.arange(24 * 24 * 3, dtype=np.uint8).reshape(24, 24, 3)
    values = processor(pixels, do_resize=False, do_center_crop=False, input_data_format="channels_last")
    expected = np.asarray(values["pixel_values"][0]).transpose(1, 2, 0)
    assert np.allclose((pixels / 255 - found.mean) / found.std, expected, rtol=1e-6, atol=1e-6)


def test_newer_folders_keep_the_image_processor_in_processor_config(clip: Path) -> None:
    settings = json.loads((clip / "preprocessor_config.json").read_text()) | {"resample": 2}
    (clip / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert read_preprocessing(clip, 24).interpolation == "bilinear"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_resize": False}, "do_resize is off"),
        ({"do_pad": True}, "do_pad is true"),
        ({"resample": 4}, "resample is 4; expected 0 .nearest."),
        ({"size": 20}, "resized to 20 pixels and then cropped to 24, which pads"),
        ({"size": {"longest_edge": 24}}, "size is .*longest_edge.*; expected a number, a shortest_edge"),
        ({"size": {"height": 32, "width": 32}}, "size is 32 x 32; expected 24 x 24"),
        ({"crop_size": 32}, "crop_size is 32 x 32, but the image tower takes 24 x 24"),
        ({"do_center_crop": False}, "pictures keep their aspect ratio"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is .*; expected a number, or one for each of 3"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std is .*; expected numbers above zero"),
        ({"size": None}, "size is None; expected a number"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255'; expected a number above zero"),
        ({"image_processor_type": "ViTImageProcessor"}, "the image processor is 'ViTImageProcessor'"),
    ],
)
def test_preprocessing_that_cannot_be_honoured(clip: Path, settings: dict[str, Any], message: str) -> None:
    edit_json(clip / "preprocessor_config.json", **settings)
    refuse(clip, message)


def test_a_folder_without_preprocessing_is_refused(clip: Path) -> None:
    (clip / "preprocessor_config.json").unlink()
    refuse(clip, "has no preprocessor_config.json")


def refuse(model: str | Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(model)
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_folder(clip: Path, tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere", "there is no folder .*nowhere; expected the path")
    refuse(clip / WEIGHTS, "expected a CLIP with the tensors of OpenAI's or OpenCLIP's, found no text_projection ")
    refuse(clip / "config.json", "is no folder and no file of weights")
    refuse(tmp_path, "has no config.json; expected a Hugging Face CLIP folder")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "blip"}, "transformers' AutoModel makes nothing of it"),
        ({"vision_config": {"hidden_act": "relu"}}, "vision_config.hidden_act: expected .*gelu.*found 'relu'"),
        ({"vision_config": {"patch_size": 30}}, "vision_config.patch_size: expected a divisor of image_size = 224"),
        ({"vision_config": {"num_channels": 1}}, "vision_config.num_channels: expected 3"),
        ({"text_config": {"num_attention_heads": 7}}, "num_attention_heads: expected a divisor of hidden_size = 512"),
        ({"text_config": {"hidden_size": "big"}}, "text_config.hidden_size: expected a positive whole number"),
        ({"text_config": {"eos_token_id": [1, 2]}}, "text_config.eos_token_id: expected a positive whole number"),
        ({"text_config": {"layer_norm_eps": 0}}, "text_config.layer_norm_eps: expected a number between 0 and 1"),
        ({"text_config": 3}, "text_config must be an object, found 3"),
        ({"projection_dim": None}, "projection_dim: expected a positive whole number, found None"),
    ],
)
def test_configurations_that_are_not_supported(clip: Path, changes: dict[str, Any], message: str) -> None:
    edit_json(clip / "config.json", **changes)
    refuse(clip, message)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00"])
def test_a_config_that_is_no_json_object(clip: Path, content: bytes) -> None:
    (clip / "config.json").write_bytes(content)
    refuse(clip, r"config\.json (cannot be read as JSON|holds no JSON object)")


def test_weights_in_a_pickle_are_read_where_there_is_nothing_else(clip: Path) -> None:
    tensors, expected = load_file(clip / WEIGHTS), load_checkpoint(clip).space_id
    torch.save(tensors, clip / "pytorch_model.bin")
    (clip / WEIGHTS).unlink()
    assert load_checkpoint(clip).space_id == expected
    first, second = "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"
    files = {name: second if name.startswith("text") else first for name in tensors}
    for file in (first, second):
        torch.save({name: tensor for name, tensor in tensors.items() if files[name] == file}, clip / file)
    (clip / "pytorch_model.bin").unlink()
    (clip / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    assert load_checkpoint(clip).space_id == expected
    (clip / "pytorch_model.bin.index.json").unlink()
    refuse(clip, "has no model.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_truncated_weights(clip: Path, keep: int) -> None:
    content = (clip / WEIGHTS).read_bytes()
    (clip / WEIGHTS).write_bytes(content[:keep])
    refuse(clip, "model.safetensors is damaged")


def test_weights_that_do_not_fit_the_configuration(make_clip: MakeClip) -> None:
    clip = make_clip()
    edit_tensors(clip, lambda tensors: tensors.update({"text_model.extra": torch.zeros(3)}))
    refuse(clip, "the weights have beyond those of the configuration text_model.extra;")
    clip = make_clip()
    edit_tensors(clip, lambda tensors: tensors.pop("visual_projection.weight"))
    refuse(clip, "the weights lack visual_projection.weight;")
    clip = make_clip()
    edit_tensors(clip, lambda tensors: tensors.update({"text_projection.weight": torch.zeros(20, 25)}))
    refuse(clip, r"text_projection.weight has the shape \[20, 25\], the configuration calls for \[20, 24\]")
    clip = make_clip()
    edit_tensors(clip, lambda tensors: tensors.update({"text_projection.weight": torch.zeros(20, 24).char()}))
    refuse(clip, "text_projection.weight has the type I8, expected F16, BF16, F32")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(clip: Path, value: float) -> None:
    edit_tensors(clip, lambda tensors: tensors["text_model.final_layer_norm.bias"].fill_(value))
    refuse(clip, "text_model.final_layer_norm.bias contains NaN or infinity")


def test_a_logit_scale_that_was_not_stored_as_logarithm(clip: Path) -> None:
    edit_tensors(clip, lambda tensors: tensors["logit_scale"].fill_(100.0))
    refuse(clip, "logit_scale is 100.0, a logarithm")


@pytest.mark.parametrize("name", ["model-2.safetensors", "../model.safetensors", "/etc/passwd"])
def test_an_index_that_names_files_which_are_not_there(clip: Path, name: str) -> None:
    shutil.move(clip / WEIGHTS, clip.parent / WEIGHTS)
    (clip / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"logit_scale": name}}))
    refuse(clip, f"index.json names the file '{name}', which is not in")


def test_the_tokenizer_is_asked_for_only_when_needed(clip: Path) -> None:
    checkpoint = load_checkpoint(clip)  # transformers' save_pretrained writes no tokenizer
    with pytest.raises(CheckpointError, match=r"expected tokenizer\.json"):
        _ = checkpoint.tokenizer_json


@pytest.mark.slow
def test_transformers_is_not_needed() -> None:
    code = "import clipedge.export.graphs, clipedge.export.checkpoints, sys; sys.exit('transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
