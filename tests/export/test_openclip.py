"""OpenCLIP folders: what is read of them, and one clear line for what cannot be. Parity is in tests/origin."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints import ModelSource, load_checkpoint
from clipedge.export.checkpoints.openclip.config import openclip_model
from clipedge.export.checkpoints.openclip.folder import find_openclip_weights
from clipedge.export.checkpoints.openclip.preprocessing import read_openclip_preprocessing
from clipedge.export.checkpoints.openclip.weights import resnet_layout, text_layout, vit_layout
from clipedge.export.checkpoints.tensors import hash_files

Tensors = dict[str, torch.Tensor]

WEIGHTS = "open_clip_model.safetensors"
PICKLE = "open_clip_pytorch_model.bin"
VISION = {"image_size": 32, "patch_size": 8, "width": 16, "head_width": 8, "layers": 2}
TEXT = {"context_length": 9, "vocab_size": 30, "width": 12, "heads": 3, "layers": 1}
MODEL = {"embed_dim": 10, "vision_cfg": VISION, "text_cfg": TEXT}


def random_tensors(model_cfg: dict[str, Any], prefix: str = "") -> Tensors:
    model = openclip_model(Path("config"), model_cfg)
    image = resnet_layout if isinstance(model.vision.values["layers"], list) else vit_layout
    generator = torch.Generator().manual_seed(0)
    shapes = {**image(model).shapes, **text_layout(model, prefix).shapes}
    tensors = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    return {**tensors, "logit_scale": torch.tensor(math.log(60.0))}


def write_folder(folder: Path, changes: dict[str, Any] | None = None, **preprocess: Any) -> Path:
    """A tiny model; ``changes`` are to model_cfg, section by section."""
    document: dict[str, Any] = {**MODEL, **(changes or {})}
    for name, section in (("vision_cfg", VISION), ("text_cfg", TEXT)):
        document[name] = {**section, **(changes or {}).get(name, {})}
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": document, "preprocess_cfg": preprocess}))
    save_file(random_tensors(MODEL), folder / WEIGHTS)
    return folder


def edit_tensors(folder: Path, edit: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)


def refuse(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_describes_its_model(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", mean=[0.5, 0.5, 0.5])
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.name, checkpoint.license) == ("model", "mit")
    assert (checkpoint.logit_scale, checkpoint.logit_bias) == (pytest.approx(60), 0)
    assert (checkpoint.activation, checkpoint.embed_dim) == ("softmax", 10)
    assert (checkpoint.image.heads, checkpoint.image.mlp_width, checkpoint.image.activation) == (2, 64, "gelu")
    assert (checkpoint.text.heads, checkpoint.text.pools_highest_id, checkpoint.text.causal) == (3, True, True)
    assert checkpoint.preprocessing.mean == (0.5, 0.5, 0.5)
    assert checkpoint.source_sha256 == hash_files([folder / WEIGHTS])


def test_a_logit_bias_means_sigmoid(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    edit_tensors(folder, lambda tensors: tensors.update(logit_bias=torch.tensor([-9.5])))  # nonscalar_logit_scale
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.activation, checkpoint.logit_bias) == ("sigmoid", -9.5)


def test_where_and_how_weights_are_stored_changes_nothing(tmp_path: Path) -> None:
    spaces = {load_checkpoint(write_folder(tmp_path / "flat")).space_id}
    custom = write_folder(tmp_path / "custom", {"custom_text": True})
    tensors = {name if "visual" in name else f"text.{name}": value for name, value in random_tensors(MODEL).items()}
    tensors["logit_scale"] = tensors.pop("text.logit_scale")
    save_file(tensors, custom / WEIGHTS)
    pickled = write_folder(tmp_path / "pickled")
    (pickled / WEIGHTS).unlink()
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{n}": v for n, v in random_tensors(MODEL).items()}}, pickled / PICKLE
    )
    spaces |= {load_checkpoint(custom).space_id, load_checkpoint(pickled).space_id}
    assert len(spaces) == 1


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / PICKLE).write_bytes(b"never opened")
    assert find_openclip_weights(folder).name == WEIGHTS
    (folder / WEIGHTS).unlink()
    refuse(folder, f"{PICKLE} .*expected a state dict|{PICKLE} is damaged")
    (folder / PICKLE).unlink()
    refuse(folder, f"has no weights; expected {WEIGHTS}, {PICKLE} or model.safetensors")


def test_of_two_layouts_that_with_weights_of_its_own_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "config.json").write_text('{"model_type": "clip"}')
    assert load_checkpoint(folder).embed_dim == 10
    (folder / WEIGHTS).rename(folder / "model.safetensors")  # which is then that of transformers
    refuse(folder, "preprocessor_config.json")
    (folder / "config.json").write_text('{"architecture": "vit_base_patch16_siglip_224"}')  # timm's
    assert load_checkpoint(folder).embed_dim == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_cfg": {"pool_type": "avg"}}, "vision_cfg.pool_type: expected 'tok', found 'avg'"),
        ({"vision_cfg": {"attentional_pool": "parallel"}}, "vision_cfg.attentional_pool: .*found 'parallel'"),
        ({"vision_cfg": {"qk_norm": True}}, "vision_cfg.qk_norm: expected False, found True"),
        ({"vision_cfg": {"novelty": 1}}, "vision_cfg.novelty: expected no such key"),
        ({"vision_cfg": {"patch_size": 7}}, "vision_cfg.patch_size: expected a divisor of image_size = 32"),
        ({"vision_cfg": {"image_size": [32, 64]}}, "vision_cfg.image_size: expected a positive whole number"),
        ({"vision_cfg": {"head_width": 5}}, "vision_cfg.head_width: expected a divisor of width = 16"),
        ({"vision_cfg": {"layers": [1, 2, 3]}}, "vision_cfg.layers: expected four positive whole numbers"),
        ({"vision_cfg": {"norm_kwargs": {"eps": 0}}}, "vision_cfg.norm_kwargs.eps: expected a number above zero"),
        ({"vision_cfg": {"norm_kwargs": {"bias": False}}}, "vision_cfg.norm_kwargs: expected .*nothing but eps"),
        ({"vision_cfg": {"act_kwargs": {"approximate": "erf"}}}, 'vision_cfg.act_kwargs: expected .*"tanh"'),
        ({"text_cfg": {"pool_type": "first"}}, "text_cfg.pool_type: expected 'argmax' or 'eos' or 'last'"),
        ({"text_cfg": {"pool_type": "eos"}}, "text_cfg.eos_id: expected an end of text other than 2"),
        ({"text_cfg": {"proj_type": "none"}}, "text_cfg.proj_type: expected 'linear', found 'none'"),
        ({"text_cfg": {"heads": 5}}, "text_cfg.heads: expected a divisor of width = 12"),
        ({"text_cfg": {"mlp_ratio": "4"}}, "text_cfg.mlp_ratio: expected a number above zero"),
        (
            {"quick_gelu": True, "text_cfg": {"act_kwargs": {"approximate": "tanh"}}},
            "text_cfg.act_kwargs: expected none beside quick_gelu",
        ),
        ({"quick_gelu": 1}, "model_cfg.quick_gelu: expected true or false, found 1"),
        ({"embed_dim": 0}, "model_cfg.embed_dim: expected a positive whole number"),
        ({"novelty": 1}, "model_cfg.novelty: expected no such key"),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    refuse(write_folder(tmp_path / "model", changes), message)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("visual.proj"), "the weights lack visual.proj;"),
        (lambda tensors: tensors.pop("text_projection"), "the weights lack text_projection;"),
        (lambda tensors: tensors.pop("logit_scale"), "the weights lack logit_scale;"),
        (lambda tensors: tensors.update(bert=torch.zeros(1)), "the weights have beyond .* bert;"),
        (
            lambda tensors: tensors.update({"token_embedding.weight": torch.zeros(31, 12)}),
            r"token_embedding.weight has the shape \[31, 12\], the configuration calls for \[30, 12\]",
        ),
        (
            lambda tensors: tensors.update({"visual.transformer.resblocks.0.ls_1.gamma": torch.zeros(16)}),
            "the weights have beyond .* visual.transformer.resblocks.0.ls_1.gamma;",
        ),
        (lambda tensors: tensors.update(logit_scale=torch.zeros(2)), r"logit_scale has the shape \[2\]"),
        (lambda tensors: tensors.update(logit_scale=torch.tensor(100.0)), "logit_scale is 100.0, a logarithm"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, edit: Any, message: str) -> None:
    folder = write_folder(tmp_path / "model")
    edit_tensors(folder, edit)
    refuse(folder, message)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ("shortest-edge", "bicubic", (0.48145466, 0.4578275, 0.40821073))),
        ({"interpolation": "random", "size": [32, 32], "mode": "RGB"}, ("shortest-edge", "bicubic", None)),
        ({"interpolation": "bilinear", "resize_mode": "squash", "mean": 0.5}, ("squash", "bilinear", (0.5, 0.5, 0.5))),
        ({"resize_mode": None, "mean": None, "std": [1, 1, 1], "fill_color": 0}, ("shortest-edge", "bicubic", None)),
    ],
)
def test_preprocessing_is_read(values: dict[str, Any], expected: tuple[str, str, Any]) -> None:
    found = read_openclip_preprocessing(Path("config"), values, 32)
    assert (found.resize, found.interpolation) == expected[:2]
    assert (found.height, found.width, found.shortest_edge) == (32, 32, 32)
    assert expected[2] is None or found.mean == expected[2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 64}, "preprocess_cfg.size: expected 32, what the image tower takes, found 64"),
        ({"resize_mode": "longest"}, "preprocess_cfg.resize_mode: expected shortest or squash, found 'longest'"),
        ({"interpolation": "lanczos"}, "preprocess_cfg.interpolation: expected bicubic or bilinear or random"),
        ({"mode": "L"}, "preprocess_cfg.mode: expected RGB"),
        ({"mean": [0.5, 0.5]}, "preprocess_cfg.mean: expected a number, or one for each of 3 channels"),
        ({"std": [0.5, 0.5, 0]}, "preprocess_cfg.std: expected numbers above zero"),
    ],
)
def test_preprocessing_that_is_not_honoured_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_openclip_preprocessing(Path("config"), values, 32)


def test_a_tokenizer_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_folder(tmp_path / "model"))
    with pytest.raises(CheckpointError, match=r"expected tokenizer\.json, .* or export with --no-text"):
        _ = checkpoint.tokenizer_json
    foreign = load_checkpoint(write_folder(tmp_path / "foreign", {"text_cfg": {"hf_tokenizer_name": "bert"}}))
    with pytest.raises(CheckpointError, match=r"text_cfg\.hf_tokenizer_name: .* --no-text, found 'bert'"):
        _ = foreign.tokenizer_json


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "vocab.json",
            '{"a": 0, "b": 1, "<s>": 2, "</s>": 3}',
            "has 4 tokens, the model's embedding table 30; ",
        ),
        ("vocab.json", "{", "no tokenizer of CLIP's kind can be read from it"),
        ("tokenizer.json", '{"model": {"type": "Unigram", "vocab": [["a", -1.5]]}}', "no tokenizer of CLIP's kind"),
    ],
)
def test_damaged_and_foreign_tokenizers_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = write_folder(tmp_path / "model")
    (tmp_path / name).write_text(content)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    checkpoint = load_checkpoint(ModelSource(str(folder), tokenizer=str(tmp_path / name)))
    with pytest.raises(CheckpointError, match=message):
        _ = checkpoint.tokenizer_json
