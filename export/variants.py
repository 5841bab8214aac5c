"""One variant of a model: convert its towers, prove them, and leave layers in float where the proof needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from clipedge.backends import Engine, open_engine
from clipedge.calibration.calibrate import Calibration
from clipedge.calibration.half.plan import KeptOperation
from clipedge.calibration.rounding import SCHEMES
from clipedge.calibration.sensitivity import LayerProfile, layer_costs, layer_profiles
from clipedge.export.convert import SourceTower, float_graph, write_variant
from clipedge.export.mixed import MAX_FLOAT_SHARE, dearest_layers, fewest
from clipedge.export.proof import Encoder, SidesByInput, embed, embed_source, source_encoder
from clipedge.export.ranges import Calibrations
from clipedge.export.report import COSTLY_LAYERS
from clipedge.export.verify import Gate, Parity, ZeroShot, compare_answers, compare_embeddings, gate_failures
from clipedge.manifest import Precision, Target, Variant
from clipedge.prompts.bank import PromptBank

__all__ = [
    "BACKEND",
    "Answers",
    "PreparedTower",
    "ProvenTower",
    "ProvenVariant",
    "compared",
    "prepare",
    "prove_tower",
    "prove_variant",
    "zero_shot",
]

BACKEND = "onnxruntime"  # in which exports are proven, whatever else is installed
COST_INPUTS = 4  # inputs on which the layers' effects on the embedding are compared
# Of a tower whose layers' effects take longer (five minutes or so; ViT-L/14: a quarter of an hour) they are measured
# only if the proof fails, which then needs them.
COST_MULTIPLY_ADDS = 10**13


@dataclass(frozen=True, eq=False)
class PreparedTower:
    """What all variants of a tower share: its float graph, and the source model's embeddings of the proof inputs."""

    source: SourceTower
    graph: onnx.ModelProto
    golden_inputs: npt.NDArray[Any]
    embeds: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answers:
    """The source model's answers for the proof pictures, the right ones where they are known, and how to get banks.

    ``exported_bank`` makes the prompt bank with an exported text tower.
    """

    source: npt.NDArray[np.intp]
    truth: npt.NDArray[np.int64] | None
    labels: tuple[str, ...]
    source_bank: PromptBank
    exported_bank: Callable[[Encoder], PromptBank]


@dataclass(frozen=True, eq=False)
class ProvenTower:
    """An exported tower in its engine, and how it compares with the source; ``half``: the same in real half precision
    (``clipedge.export.half``), for graphs that are."""

    variant: Variant
    engine: Engine
    sides: SidesByInput
    parity: Parity
    half: ProvenTower | None = None


@dataclass(frozen=True, eq=False)
class ProvenVariant:
    """``failures`` are the lines in which the variant stays below the gate; ``layers`` are empty for float and for
    another ``quantizer`` than our own, which has what ours made ``beside`` it, if that makes such variants; ``kept`` is
    what half precision left in float32.
    """

    towers: dict[str, ProvenTower]
    zero_shot: ZeroShot | None
    failures: tuple[str, ...]
    layers: tuple[LayerProfile, ...] = ()
    kept: tuple[KeptOperation, ...] = ()
    quantizer: str = "clipedge"
    beside: ProvenVariant | None = None


def prepare(source: SourceTower, folder: Path) -> PreparedTower:
    golden_inputs, embeds = embed_source(source_encoder(source.module), source.proof)
    return PreparedTower(source, float_graph(source, folder), golden_inputs, embeds)


def prove_variant(
    towers: dict[str, PreparedTower],
    folder: Path,
    precision: Precision,
    target: Target,
    calibrations: Calibrations,
    answers: Answers | None,
    gate: Gate,
) -> ProvenVariant:
    """Write the variant, in float32 or INT8, into ``folder`` and prove it.

    INT8 that fails has its dearest layers left in float, as few as the proof needs; if half of the multiply-adds in
    float do not help, what stays is the attempt with all of these, with its failures.
    """
    found: dict[str, Calibration] = {}
    if precision == "int8":
        found = {name: calibrations.of(tower.source, tower.graph, target) for name, tower in towers.items()}
    proven: dict[tuple[str, tuple[str, ...]], ProvenTower] = {}  # a tower's attempts, by name and layers in float

    def attempt(keep_float: Mapping[str, tuple[str, ...]]) -> ProvenVariant:
        tried = {}
        for name, tower in towers.items():
            kept = keep_float.get(name, ())
            variant = write_variant(tower.source, tower.graph, folder, precision, target, found.get(name), kept)
            if (name, kept) not in proven:
                proven[name, kept] = prove_tower(tower, variant, folder)
            tried[name] = proven[name, kept]
        answered = zero_shot(tried, answers)
        failures = gate_failures({name: tower.parity for name, tower in tried.items()}, answered, gate)
        return ProvenVariant(tried, answered, tuple(failures))

    first = attempt({})
    profiles = _profiles(towers, found, target, costs_needed=bool(first.failures))
    if not first.failures or precision == "fp32":
        return replace(first, layers=tuple(profiles))
    failing = [name for name in towers if any(line.startswith(f"{name} tower") for line in first.failures)]
    dearest = dearest_layers([profile for profile in profiles if profile.tower in (failing or towers)])
    tries = {0: first}

    def passes(count: int) -> bool:
        if count not in tries:
            tries[count] = attempt(_by_tower(dearest[:count]))
        return not tries[count].failures

    count = fewest(passes, len(dearest))
    kept = _by_tower(dearest[:count])
    layers = tuple(replace(profile, in_float=profile.layer in kept.get(profile.tower, ())) for profile in profiles)
    if count is None:
        return _beyond_help(replace(tries[len(dearest)], layers=layers))
    # The files on disk are those of the last attempt, which need not have been the one that is kept.
    return replace(attempt(kept), layers=layers)


def _beyond_help(last: ProvenVariant) -> ProvenVariant:
    """``last`` is the attempt with as many layers in float as may be."""
    costs = sorted(((layer.cost or 0.0, f"{layer.tower} {layer.layer}") for layer in last.layers), reverse=True)
    named = ", ".join(name for _, name in costs[:COSTLY_LAYERS])
    count = sum(layer.in_float for layer in last.layers)
    line = (
        f"this is with {count} layers in float already, and more would be over {MAX_FLOAT_SHARE:.0%} of the "
        f"multiply-adds; in INT8 cost most: {named}"
    )
    return replace(last, failures=(*last.failures, line))


def _profiles(
    towers: dict[str, PreparedTower], found: Mapping[str, Calibration], target: Target, costs_needed: bool
) -> list[LayerProfile]:
    profiles = []
    for name, calibration in found.items():
        graph, inputs = towers[name].graph, towers[name].golden_inputs[:COST_INPUTS]
        own = layer_profiles(name, graph, calibration)
        work = len(own) * len(inputs) * sum(profile.multiply_adds for profile in own)
        if costs_needed or work <= COST_MULTIPLY_ADDS:
            costs = layer_costs(graph, calibration, SCHEMES[target], inputs)
            own = [replace(profile, cost=costs[profile.layer]) for profile in own]
        profiles += own
    return profiles


def _by_tower(layers: list[LayerProfile]) -> dict[str, tuple[str, ...]]:
    return {
        tower: tuple(item.layer for item in layers if item.tower == tower) for tower in {item.tower for item in layers}
    }


def prove_tower(tower: PreparedTower, variant: Variant, folder: Path) -> ProvenTower:
    """Run what was written into ``folder`` over the proof inputs."""
    engine = open_engine(folder / variant.files[0].path, variant, BACKEND)
    return compared(tower, variant, engine, embed(engine, tower.source.proof))


def compared(tower: PreparedTower, variant: Variant, engine: Engine, exported: npt.NDArray[np.float32]) -> ProvenTower:
    """Compare an engine's embeddings of the first proof inputs, or of all; a tower of patches patch by patch."""
    source, found = (embeds.reshape(-1, embeds.shape[-1]) for embeds in (tower.embeds[: len(exported)], exported))
    sides = SidesByInput(tower.golden_inputs, source, found)
    return ProvenTower(variant, engine, sides, compare_embeddings(sides.source, sides.exported))


def zero_shot(towers: Mapping[str, ProvenTower], answers: Answers | None) -> ZeroShot | None:
    """Classify the proof pictures, each model with its own text tower if it was exported too."""
    if answers is None:
        return None
    bank = answers.exported_bank(towers["text"].engine) if "text" in towers else answers.source_bank
    exported = (towers["image"].sides.exported @ bank.label_embeds.T).argmax(axis=1)
    return compare_answers(answers.source, exported, answers.truth, answers.labels)
