"""Adapters, against the arithmetic in float64; what peft itself makes of them is in tests/origin."""

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
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.checkpoints.adapters import open_adapter
from clipedge.export.checkpoints.tensors import open_safetensors

Write = Callable[..., Path]
Tensors = dict[str, torch.Tensor]

MODULE = "vision_model.encoder.layers.1.mlp.fc1"  # (512, 128) in the demonstration checkpoint
PREFIX = f"base_model.model.{MODULE}"
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": str(DEMO_CHECKPOINT),
    "r": 4,
    "lora_alpha": 10,
    "bias": "none",
    "fan_in_fan_out": False,
    "target_modules": ["fc1"],
}


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


FACTORS: Tensors = {f"{PREFIX}.lora_A.weight": noise(4, 128), f"{PREFIX}.lora_B.weight": noise(512, 4)}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """An adapter of the demonstration checkpoint; keywords change its configuration."""

    def adapter(tensors: Tensors = FACTORS, **changes: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return adapter


def merged(folder: Path, name: str = f"{MODULE}.weight") -> torch.Tensor:
    stored = open_safetensors([DEMO_CHECKPOINT / "model.safetensors"])
    return open_adapter(folder).merge(stored)[name].load()


def base(name: str = f"{MODULE}.weight") -> torch.Tensor:
    return load_file(DEMO_CHECKPOINT / "model.safetensors")[name].double()


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, 10 / 4),
        ({"use_rslora": True}, 10 / math.sqrt(4)),
        ({"r": 64}, 10 / 4),
        ({"alpha_pattern": {"fc1": 6}}, 6 / 4),
        ({"alpha_pattern": {r"layers\.\d+\.mlp\.fc1": 6}}, 6 / 4),
        ({"alpha_pattern": {r"^vision_model.*fc1": 6, "fc1": 7}}, 6 / 4),
        ({"alpha_pattern": {"c1": 6, "fc2": 7}}, 10 / 4),
    ],
)
def test_the_change_is_the_scaled_product_rounded_once(write: Write, changes: dict[str, Any], scale: float) -> None:
    a, b = (FACTORS[f"{PREFIX}.lora_{part}.weight"].double() for part in "AB")
    assert torch.equal(merged(write(**changes)), (base() + scale * b @ a).float())


def test_a_transposed_layer(write: Write) -> None:
    tensors = {f"{PREFIX}.lora_A.weight": noise(4, 512), f"{PREFIX}.lora_B.weight": noise(128, 4)}
    a, b = (tensors[f"{PREFIX}.lora_{part}.weight"].double() for part in "AB")
    assert torch.equal(merged(write(tensors, fan_in_fan_out=True)), (base() + 10 / 4 * (b @ a).T).float())


def test_modules_that_were_trained_whole_replace_the_models(write: Write) -> None:
    tensors = {"base_model.model.visual_projection.weight": noise(128, 128)}
    folder = write(FACTORS | tensors, modules_to_save=["visual_projection"])
    assert torch.equal(merged(folder, "visual_projection.weight"), noise(128, 128))
    assert torch.equal(merged(folder, "text_projection.weight").double(), base("text_projection.weight"))


def test_a_model_with_its_adapter_loads_as_one(write: Write) -> None:
    folder, plain = write(), load_checkpoint(DEMO_CHECKPOINT)
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.name, checkpoint.license) == ("adapter", "apache-2.0")
    assert checkpoint.space_id != plain.space_id
    assert checkpoint.tokenizer_json == plain.tokenizer_json
    assert load_checkpoint(checkpoint.source).space_id == checkpoint.space_id, "another process can load it again"
    changed = {
        name for name, weight in checkpoint.image_weights.items() if not torch.equal(weight, plain.image_weights[name])
    }
    assert changed == {"blocks.1.fc1.weight"}


@pytest.mark.parametrize(("own", "expected"), [("cc-by-nc-4.0", "cc-by-nc-4.0"), ("mit", "apache-2.0")])
def test_of_two_licences_the_one_that_restricts_counts(write: Write, own: str, expected: str) -> None:
    folder = write()
    (folder / "README.md").write_text(f"---\nlicense: {own}\n---\n")
    assert load_checkpoint(folder).license == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type: expected 'LORA'"),
        ({"bias": "all"}, "bias: expected 'none'"),
        ({"use_dora": True}, "use_dora: expected none, plain LoRA"),
        ({"lora_bias": True}, "lora_bias: expected none"),
        ({"layer_replication": [[0, 2]]}, "layer_replication: expected none"),
        ({"init_lora_weights": "pissa_niter_4"}, "leaves the base model as it is"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path: expected the base model's folder"),
        (
            {"base_model_name_or_path": "/no/such/model"},
            "base_model_name_or_path is /no/such/model: there is no folder",
        ),
        ({"lora_alpha": 0}, "lora_alpha: expected a number above zero"),
        ({"alpha_pattern": {"fc1": "6"}}, "alpha_pattern.fc1: expected a number above zero"),
    ],
)
def test_adapters_that_are_not_plain_lora(write: Write, changes: dict[str, Any], message: str) -> None:
    refuse(write(**changes), message)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{PREFIX}.lora_A.weight": noise(4, 128)}, "fc1 has only one of the matrices A and B"),
        (FACTORS | {f"{PREFIX}.lora_B.weight": noise(512, 3)}, "do not fit together"),
        (FACTORS | {f"{PREFIX}.lora_B.weight": noise(500, 4)},
         r"of shape \[500, 128\].*has it in the shape \[512, 128\]"),
        (FACTORS | {f"{PREFIX}.lora_magnitude_vector": noise(512)}, "lora_magnitude_vector is no matrix of LoRA"),
        (FACTORS | {"base_model.model.visual_projection.weight": noise(128, 128)}, "of no module that modules_to_save"),
        ({"base_model.model.head.lora_A.weight": noise(4, 8), "base_model.model.head.lora_B.weight": noise(8, 4)},
         r"changes the tensor head.weight.*base model .*demo has none"),
        (FACTORS | {f"{PREFIX}.lora_A.weight": noise(4, 128) * math.nan}, "contains NaN"),
        (FACTORS | {f"{PREFIX}.lora_A.weight": torch.ones(4, 128, dtype=torch.int8)}, "has the type I8"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_belong(write: Write, tensors: Tensors, message: str) -> None:
    refuse(write(tensors), message)


def test_an_adapter_without_its_weights(write: Write) -> None:
    folder = write()
    (folder / "adapter_model.safetensors").unlink()
    refuse(folder, "has no adapter_model.safetensors")


def refuse(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)
