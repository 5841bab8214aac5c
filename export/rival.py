"""``--quantizer modelopt``: graphs for TensorRT by NVIDIA's Model Optimizer, proven like ours: in INT8 beside ours, and
in FP8, for which we have no quantizer of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from clipedge.calibration.modelopt import quantize_with_modelopt, require_modelopt
from clipedge.errors import UsageError
from clipedge.export.convert import save_variant
from clipedge.export.ranges import Calibrations
from clipedge.export.tensorrt_rules import require_tensorrt
from clipedge.export.variants import Answers, PreparedTower, ProvenVariant, prove_tower, zero_shot
from clipedge.export.verify import Gate, gate_failures
from clipedge.manifest import Precision, Target

__all__ = ["QUANTIZERS", "Quantizer", "check_quantizer", "prove_modelopt", "prove_rival"]

Quantizer = Literal["clipedge", "modelopt"]
QUANTIZERS: tuple[Quantizer, ...] = ("clipedge", "modelopt")


def check_quantizer(quantizer: str, variants: Sequence[tuple[Precision, Target]], dense: bool) -> None:
    """Raises UsageError for an unknown quantizer, for variants that Model Optimizer does not make, and for FP8 without
    it, which it alone makes; MissingDependencyError if it is asked for and not installed."""
    if quantizer not in QUANTIZERS:
        raise UsageError(f"unknown quantizer {quantizer!r}; there are: {', '.join(QUANTIZERS)}")
    quantized = [(kind, target) for kind, target in variants if kind in ("int8", "fp8")]
    if quantizer == "clipedge" and any(kind == "fp8" for kind, _ in quantized):
        raise UsageError(
            "FP8 graphs are made by NVIDIA's Model Optimizer alone, for TensorRT: add --quantizer modelopt --target "
            "tensorrt, or export in int8"
        )
    if quantizer == "modelopt" and (dense or {target for _, target in quantized} != {"tensorrt"}):
        found = " and ".join(f"{kind.upper()} for {target}" for kind, target in quantized) or "nothing to quantize"
        raise UsageError(
            "--quantizer modelopt is for --precision int8 or fp8 --target tensorrt, without --dense; found "
            f"{'--dense' if dense else found}. Export the rest to a folder of its own"
        )
    if quantizer == "modelopt":
        require_modelopt()


def prove_rival(
    ours: ProvenVariant,
    towers: Mapping[str, PreparedTower],
    folder: Path,
    calibrations: Calibrations,
    answers: Answers | None,
    gate: Gate,
) -> ProvenVariant:
    """Model Optimizer's INT8 graphs in place of our own in ``folder``, proven; ``ours`` stays beside it, without its
    files. Calibration is on the same inputs. Raises as ``prove_modelopt``."""
    for tower in ours.towers.values():
        for file in tower.variant.files:
            (folder / file.path).unlink()
    return replace(prove_modelopt("int8", towers, folder, calibrations, answers, gate), beside=ours)


def prove_modelopt(
    precision: Literal["int8", "fp8"],
    towers: Mapping[str, PreparedTower],
    folder: Path,
    calibrations: Calibrations,
    answers: Answers | None,
    gate: Gate,
) -> ProvenVariant:
    """Write Model Optimizer's graphs into ``folder`` and prove them, in ONNX Runtime on the CPU: quantized numbers are
    rounded there as on a GPU, and multiplied in float32.

    No layer is left in float for the proof's sake: what fails stays, with its failures. Raises MissingDependencyError
    without Model Optimizer, BackendError if it fails or its graph breaks TensorRT's rules.
    """
    tried = {}
    for name, tower in towers.items():
        path = folder / f"{name}.{precision}.tensorrt.onnx"
        graph = quantize_with_modelopt(tower.graph, calibrations.inputs(tower.source), precision)
        require_tensorrt(graph, f"{path.name} by Model Optimizer")
        variant = save_variant(tower.source, graph, path, precision, "tensorrt")
        tried[name] = prove_tower(tower, variant, folder)
    found = zero_shot(tried, answers)
    failures = gate_failures({name: tower.parity for name, tower in tried.items()}, found, gate)
    return ProvenVariant(tried, found, tuple(failures), quantizer="modelopt")
