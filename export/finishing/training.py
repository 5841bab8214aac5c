"""finish(): some steps of training in INT8's own arithmetic, against the float tower's embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from tqdm import tqdm

from clipedge.calibration.calibrate import Calibration
from clipedge.calibration.rounding import Scheme
from clipedge.errors import ClipEdgeError, UsageError
from clipedge.export.convert import SourceTower
from clipedge.export.finishing.layers import IntegerTower, integer_tower
from clipedge.export.proof import embed, source_encoder
from clipedge.manifest import Precision, Target

__all__ = ["check_finish", "finish"]

BATCH = 32
LEAST_INPUTS = 32
MAX_INPUT_BYTES = 2**30  # of the inputs that stay in memory; the first so many are trained on
# What Adam's first update changes, all of whose entries are of one size: as a share of a layer's output, and of a step.
OUTPUT_RATE, STEP_RATE = 1e-2, 1e-2
WARM_UP = 0.1  # of the steps
BETAS = (0.9, 0.99)
OBSERVER = "finished"


def check_finish(
    steps: int, variants: Sequence[tuple[Precision, Target]], quantizer: str, int8_attention: bool
) -> None:
    """Raises UsageError for steps that are none, and for an export that has nothing to finish."""
    if steps < 1:
        raise UsageError(f"--finish {steps}: expected a number of training steps, such as 300")
    kinds = dict.fromkeys(kind for kind, _ in variants)
    if "int8" not in kinds:
        found = f"precision {' and '.join(kinds)}" if kinds else "no export"
        raise UsageError(f"--finish trains INT8 layers, found {found}; leave it out, or add int8")
    for option, given in (("--quantizer modelopt", quantizer == "modelopt"), ("--int8-attention", int8_attention)):
        if given:
            raise UsageError(
                f"--finish trains what our own quantizer does to linear layers, found {option}; leave one out"
            )


def finish(
    source: SourceTower, model: onnx.ModelProto, calibration: Calibration, scheme: Scheme, steps: int
) -> Calibration:
    """A calibration whose weights, shifts and ranges were trained together for some steps.

    ``model`` is the tower's float graph, ``calibration`` where the training begins. Each step takes a batch of the
    source's calibration inputs and lowers 1 - cosine of the integer tower's embeddings and the source tower's own:
    feature distillation, as ``clipedge.export.distillation.objectives.feature_cosine`` has it. Deterministic on one
    machine with one number of threads. Raises UsageError for too few inputs and for a tower that is no transformer,
    ClipEdgeError if the loss is no number.
    """
    tower = integer_tower(model, calibration, scheme, source.pixel_mean)
    inputs = _kept(source)
    teacher = torch.from_numpy(embed(source_encoder(source.module), np.array_split(inputs, -(-len(inputs) // BATCH))))
    _train(tower, inputs, teacher, steps, f"finishing the {source.name} tower")
    return _finished(tower, calibration, steps)


def _kept(source: SourceTower) -> npt.NDArray[Any]:
    """The first calibration inputs; the rest is read, so that the stream knows itself whole, and let go."""
    kept: list[npt.NDArray[Any]] = []
    for batch in source.calibration:
        if sum(part.nbytes for part in kept) < MAX_INPUT_BYTES:
            kept.append(batch)
    count = sum(map(len, kept))
    if count < LEAST_INPUTS:
        raise UsageError(
            f"--finish trains on the {source.name} tower's calibration inputs, expected {LEAST_INPUTS} or more, found "
            f"{count}; give some hundreds, or leave it out"
        )
    return np.concatenate(kept)


def _train(tower: IntegerTower, inputs: npt.NDArray[Any], teacher: torch.Tensor, steps: int, title: str) -> None:
    optimizer = _optimizer(tower)
    rates = [group["lr"] for group in optimizer.param_groups]
    with tqdm(desc=title, total=steps, unit="step", disable=None, leave=False) as bar:
        for step, rows in enumerate(_rows(len(inputs), steps)):
            embeds = tower.graph(torch.from_numpy(inputs[rows]))
            loss = (1 - (embeds * teacher[rows]).sum(dim=-1)).mean()
            if not math.isfinite(loss.item()):
                raise ClipEdgeError(f"finishing: the loss of step {step + 1} is {loss.item()}; export without --finish")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * _schedule((step + 1) / (steps + 1))
            optimizer.step()
            bar.set_postfix_str(f"loss {loss.item():.4f}", refresh=False)
            bar.update()


def _schedule(progress: float) -> float:
    """The share of the highest rate: a linear rise, times half a cosine down to nothing."""
    return min(progress / WARM_UP, 1.0) * (1 + math.cos(math.pi * progress)) / 2


def _optimizer(tower: IntegerTower) -> torch.optim.Adam:
    """Adam. A weight's rate is in proportion to its size over the root of its inputs' number: their changes add up."""
    groups: list[dict[str, Any]] = []
    steps: dict[int, torch.Tensor] = {}  # some serve several layers
    for layer in tower.layers.values():
        groups.append({"params": [layer.weight], "lr": OUTPUT_RATE * _size(layer.weight) / len(layer.weight) ** 0.5})
        steps[id(layer.weights)] = layer.weights.log_step
    for linear in tower.linears.values():
        groups.append({"params": [linear.shift], "lr": OUTPUT_RATE * _size(linear.weight)})
        steps[id(linear.inputs)] = linear.inputs.log_step
    groups.append({"params": list(steps.values()), "lr": STEP_RATE})
    return torch.optim.Adam(groups, betas=BETAS, eps=1e-12)


def _size(weight: torch.Tensor) -> float:
    return float(weight.detach().square().mean().sqrt())


def _rows(count: int, steps: int) -> Iterator[npt.NDArray[np.int64]]:
    """The rows of each step's batch: pass after pass, each in an order of its own."""
    random = np.random.default_rng(0)
    order = np.zeros(0, np.int64)
    for _ in range(steps):
        if len(order) < BATCH:
            order = random.permutation(count)
        yield order[:BATCH]
        order = order[BATCH:]


def _finished(tower: IntegerTower, calibration: Calibration, steps: int) -> Calibration:
    layers = {
        name: replace(
            calibration.of(name),
            limits=linear.inputs.limits(),
            observer=OBSERVER,
            shift=linear.shift.detach().numpy().copy(),
        )
        for name, linear in tower.linears.items()
    }
    weights = {name: layer.integer_weight() for name, layer in tower.layers.items()}
    return replace(calibration, layers=layers, weights=weights, finished=steps)
