"""``--precision fp16``: a variant in half precision, proven twice.

CPU engines compute such a graph in float32, where little overflows. So the proof is a second one: the same graph in
real half precision (``clipedge.calibration.half.evaluate``), on the first of the proof inputs, since that is slow. Its
figures are those that the manifest keeps. Nothing here has run on a GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from clipedge.backends import open_engine
from clipedge.calibration.half.convert import to_half
from clipedge.calibration.half.evaluate import HalfEvaluator
from clipedge.calibration.half.pixels import scaled_pixels
from clipedge.calibration.half.plan import KeptOperation, operations_in_float32
from clipedge.errors import BackendError
from clipedge.export.convert import save_variant
from clipedge.export.proof import Embeddings
from clipedge.export.ranges import Calibrations
from clipedge.export.tensorrt_rules import require_tensorrt
from clipedge.export.variants import (
    BACKEND,
    Answers,
    PreparedTower,
    ProvenTower,
    ProvenVariant,
    compared,
    zero_shot,
)
from clipedge.export.verify import Gate, gate_failures
from clipedge.manifest import Target, Variant

__all__ = ["HALF_INPUTS", "half_failures", "prove_half", "prove_half_tower"]

HALF_INPUTS = 128  # of the proof's, that are computed in real half precision
# Half precision rounds to a two-thousandth, so it has to come nearer than INT8 has to.
MEDIAN_COSINE, P1_COSINE = 0.999, 0.99


def prove_half(
    towers: Mapping[str, PreparedTower],
    folder: Path,
    target: Target,
    calibrations: Calibrations,
    answers: Answers | None,
    gate: Gate,
) -> ProvenVariant:
    """Write the variant into ``folder`` and prove it.

    Operations that half precision cannot hold on the calibration inputs stay in float32; if the proof fails all the
    same, the variant has its failures. Raises BackendError if a proof input overflows, and for a graph for TensorRT
    that breaks its rules.
    """
    proven: dict[str, ProvenTower] = {}
    kept: list[KeptOperation] = []
    for name, tower in towers.items():
        proven[name], operations = prove_half_tower(tower, folder, target, calibrations)
        kept += operations
    answered = zero_shot(proven, answers)
    failures = gate_failures({name: tower.parity for name, tower in proven.items()}, answered, gate)
    failures += half_failures(proven, gate)
    return ProvenVariant(proven, answered, tuple(failures), kept=tuple(kept))


def half_failures(proven: Mapping[str, ProvenTower], gate: Gate) -> list[str]:
    """In which lines towers stay below the gate, and half precision's own, when computed in half precision."""
    stricter = dataclasses.replace(
        gate,
        median_centred_cosine=max(MEDIAN_COSINE, gate.median_centred_cosine),
        p1_centred_cosine=max(P1_COSINE, gate.p1_centred_cosine),
    )
    parities = {f"half-precision {name}": tower.half.parity for name, tower in proven.items() if tower.half}
    return gate_failures(parities, None, stricter)


def prove_half_tower(
    tower: PreparedTower, folder: Path, target: Target, calibrations: Calibrations
) -> tuple[ProvenTower, tuple[KeptOperation, ...]]:
    """Write a tower into ``folder``, run it over the proof inputs, in the engine and in half precision; and what stays
    in float32 of it."""
    source = tower.source
    graph = scaled_pixels(tower.graph, source.pixel_mean)
    kept = operations_in_float32(source.name, graph, calibrations.magnitudes(source, graph))
    model = to_half(graph, [item.operation for item in kept])
    path = folder / f"{source.name}.fp16.onnx"
    if target == "tensorrt":
        require_tensorrt(model, path.name)
    return _prove(tower, folder, save_variant(source, model, path, "fp16", "any"), model), kept


def _prove(tower: PreparedTower, folder: Path, variant: Variant, model: onnx.ModelProto) -> ProvenTower:
    """One pass over the proof inputs, which may be many, for both."""
    engine, evaluator = open_engine(folder / variant.files[0].path, variant, BACKEND), HalfEvaluator(model)
    exported: list[Embeddings] = []
    halves: list[Embeddings] = []
    missing = HALF_INPUTS
    for batch in tower.source.proof:
        exported.append(engine(batch))
        if missing > 0:
            halves.append(evaluator(batch[:missing]))
            missing -= len(halves[-1])
    _check_finite(variant.tower, np.concatenate(halves))
    half = compared(tower, variant, evaluator, np.concatenate(halves))
    return dataclasses.replace(compared(tower, variant, engine, np.concatenate(exported)), half=half)


def _check_finite(tower: str, embeds: Embeddings) -> None:
    """Raises BackendError for embeddings that are no numbers."""
    lost = int((~np.isfinite(embeds.reshape(len(embeds), -1)).all(axis=1)).sum())
    if lost:
        raise BackendError(
            f"the {tower} tower overflows in half precision on {lost} of {len(embeds)} proof inputs, though "
            "no calibration input comes near; calibrate on more pictures like those of the proof, or export in fp32"
        )
