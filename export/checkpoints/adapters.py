"""Low-rank adapters of the library peft, merged into the weights of the model that they were trained for.

LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685) trains W + s B A with W
fixed, A (r, in) and B (out, r), and s = alpha / r, or alpha / sqrt(r) when rank-stabilised (Kalajdzievski 2023, arXiv
2312.03732). The sum is computed in float64 and rounded once. Expected in the folder: ``adapter_config.json`` and
``adapter_model.safetensors``, as ``PeftModel.save_pretrained`` writes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.sections import Section, read_json
from clipedge.export.checkpoints.tensors import Shape, Stored, StoredTensor, open_safetensors, read_tensors

__all__ = ["ADAPTER_CONFIG", "Adapter", "open_adapter"]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

# What changes the arithmetic beyond W + s B A, by its field in the configuration.
VARIANTS = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "megatron_config",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
# Initialisations that also change W, which the adapter's file does not hold.
CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
MERGE_THERE = "merge it where it was trained: model.merge_and_unload().save_pretrained(folder)"

# A tensor of the file: module, which matrix. An embedding's matrices are named without "weight".
FACTOR = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.weight)?")
PREFIX = "base_model.model."


@dataclass(frozen=True, eq=False)
class _Update:
    """s B A for one weight; ``transposed``: for its transpose."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    transposed: bool

    @property
    def shape(self) -> Shape:
        shape = (self.b.shape[0], *self.a.shape[1:])
        return shape[::-1] if self.transposed else shape

    def added_to(self, weight: torch.Tensor) -> torch.Tensor:
        """A convolution's A is (r, in, kh, kw) and its B (out, r, 1, 1): a product of matrices all the same."""
        change = self.scale * (self.b.double().flatten(1) @ self.a.double().flatten(1))
        if self.transposed:
            change = change.T
        return (weight.double() + change.reshape(weight.shape)).float()


@dataclass(frozen=True, eq=False)
class Adapter:
    """What was trained on top of a model. ``base``: that model's folder or name on a hub, ``revision`` its revision
    there. ``updates`` by name of the weight, ``replaced``: weights that were trained whole."""

    folder: Path
    base: str
    revision: str | None
    updates: Mapping[str, _Update]
    replaced: Mapping[str, StoredTensor]

    @property
    def weights_file(self) -> Path:
        return self.folder / ADAPTER_WEIGHTS

    def merge(self, stored: Stored) -> Stored:
        """The base model's tensors with the adapter in them. Raises CheckpointError for a tensor that the base model
        lacks or has in another shape."""
        for name, shape in {
            **{name: update.shape for name, update in self.updates.items()},
            **{name: entry.shape for name, entry in self.replaced.items()},
        }.items():
            if name not in stored or stored[name].shape != shape:
                found = f"has it in the shape {list(stored[name].shape)}" if name in stored else "has none"
                raise CheckpointError(
                    f"{self.weights_file}: changes the tensor {name} of shape {list(shape)}; its base model "
                    f"{self.base} {found}; correct base_model_name_or_path in {ADAPTER_CONFIG}"
                )
        updated = {name: _updated(stored[name], update) for name, update in self.updates.items()}
        return {**stored, **updated, **self.replaced}


def _updated(entry: StoredTensor, update: _Update) -> StoredTensor:
    return StoredTensor(entry.file, entry.shape, entry.dtype, lambda: update.added_to(entry.load()))


def open_adapter(folder: Path) -> Adapter:
    """Read an adapter.

    Raises CheckpointError when it is damaged, or anything but LoRA matrices and modules that were trained whole.
    """
    path = folder / ADAPTER_CONFIG
    config = Section(path, "", read_json(path))
    _check_kind(config)
    base = config.values.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise config.refuse("base_model_name_or_path", "the base model's folder, or its name on a hub")
    weights = folder / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{folder} has no {ADAPTER_WEIGHTS}; save the adapter with save_pretrained(folder)")
    stored = open_safetensors([weights])
    updates, others = _pair_factors(config, stored, weights)
    return Adapter(
        folder=folder,
        base=base,
        revision=config.values.get("revision"),
        updates=updates,
        replaced=_replacements(config, stored, others),
    )


def _check_kind(config: Section) -> None:
    if config.values.get("peft_type") != "LORA":
        raise config.refuse("peft_type", f"'LORA', the only kind of adapter that is merged here; {MERGE_THERE}")
    if config.values.get("bias", "none") != "none":
        raise config.refuse("bias", f"'none'; {MERGE_THERE}")
    for key in VARIANTS:
        if config.values.get(key):
            raise config.refuse(key, f"none, plain LoRA; {MERGE_THERE}")
    if str(config.values.get("init_lora_weights", True)).lower().startswith(CHANGED_BASE):
        raise config.refuse("init_lora_weights", f"one that leaves the base model as it is; {MERGE_THERE}")


def _pair_factors(config: Section, stored: Stored, path: Path) -> tuple[dict[str, _Update], list[str]]:
    """The updates by name of the weight, and the names of the tensors that belong to none."""
    pairs: dict[tuple[str, bool], dict[str, str]] = {}
    others = []
    for name in stored:
        factor = FACTOR.fullmatch(name.removeprefix(PREFIX))
        if factor is None:
            others.append(name)
        else:
            pairs.setdefault((factor[1], factor[2] is not None), {})[factor[3]] = name
    updates = {}
    for (module, is_embedding), pair in pairs.items():
        if pair.keys() != {"A", "B"}:
            raise CheckpointError(f"{path}: {module} has only one of the matrices A and B; save the adapter again")
        tensors = read_tensors({name: stored[name] for name in pair.values()}, _shapes(stored, pair.values()), path)
        a, b = tensors[pair["A"]], tensors[pair["B"]]
        if a.ndim < 2 or b.ndim != a.ndim or b.shape[1] != a.shape[0]:
            raise CheckpointError(f"{path}: {module}: A {list(a.shape)} and B {list(b.shape)} do not fit together")
        transposed = is_embedding or config.flag("fan_in_fan_out", False)
        updates[f"{module}.weight"] = _Update(a, b, _scale(config, module, rank=len(a)), transposed)
    return updates, others


def _shapes(stored: Stored, names: Any) -> dict[str, Shape]:
    return {name: stored[name].shape for name in names}


def _scale(config: Section, module: str, rank: int) -> float:
    """What the change is multiplied by. A key of ``alpha_pattern`` is a regular expression for the module's name, or
    for the end of it behind a dot; the first that fits counts."""
    pattern = config.values.get("alpha_pattern") or {}
    if not isinstance(pattern, dict):
        raise config.refuse("alpha_pattern", "an object")
    alphas = Section(config.path, "alpha_pattern", pattern)
    key = next((key for key in pattern if re.match(rf"(.*\.)?({key})$", module)), None)
    alpha = config.number("lora_alpha", 8) if key is None else alphas.number(key, 8)
    return alpha / (math.sqrt(rank) if config.flag("use_rslora", False) else rank)


def _replacements(config: Section, stored: Stored, names: list[str]) -> dict[str, StoredTensor]:
    """Tensors of the modules that ``modules_to_save`` names, by the end of their names."""
    saved = tuple(config.values.get("modules_to_save") or ())
    replaced = {}
    for name in names:
        target = name.removeprefix(PREFIX)
        if not target.rpartition(".")[0].endswith(saved):
            raise CheckpointError(
                f"{config.path.parent / ADAPTER_WEIGHTS}: the tensor {name} is no matrix of LoRA, and of no module "
                f"that modules_to_save names; {MERGE_THERE}"
            )
        replaced[target] = stored[name]
    return replaced
