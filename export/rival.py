"""``--quantizer modelopt``: INT8 graphs for TensorRT by NVIDIA's Model Optimizer, proven like ours and beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from clipedge.calibration.modelopt import quantize_with_modelopt, require_modelopt
from clipedge.errors import UsageError
from clipedge.export.convert import save_variant
from clipedge.export.tensorrt_rules import require_tensorrt
from clipedge.export.variants import Answers, PreparedTower, ProvenVariant, prove_tower, zero_shot
from clipedge.export.verify import Gate, gate_failures
from clipedge.manifest import Precision, Target

__all__ = ["QUANTIZERS", "Quantizer", "check_quantizer", "prove_rival"]

Quantizer = Literal["clipedge", "modelopt"]
QUANTIZERS: tuple[Quantizer, ...] = ("clipedge", "modelopt")


def check_quantizer(quantizer: str, variants: Sequence[tuple[Precision, Target]], dense: bool) -> None:
    """Raises UsageError for an unknown quantizer, and for variants that Model Optimizer does not make;
    MissingDependencyError if it is asked for and not installed."""
    if quantizer not in QUANTIZERS:
        raise UsageError(f"unknown quantizer {quantizer!r}; there are: {', '.join(QUANTIZERS)}")
    targets = [target for kind, target in variants if kind == "int8"]
    if quantizer == "modelopt" and (dense or set(targets) != {"tensorrt"}):
        found = "--dense" if dense else f"INT8 for {' and '.join(targets) or 'nothing'}"
        raise UsageError(
            f"--quantizer modelopt is for --precision int8 --target tensorrt, without --dense; found {found}. Export "
            "the rest to a folder of its own"
        )
    if quantizer == "modelopt":
        require_modelopt()


def prove_rival(
    ours: ProvenVariant, towers: dict[str, PreparedTower], folder: Path, answers: Answers | None, gate: Gate
) -> ProvenVariant:
    """Model Optimizer's graphs in place of our own in ``folder``, proven; ``ours`` stays beside it, without its files.

    Calibration is on the same inputs. No layer is left in float for the proof's sake: what fails stays, with its
    failures. Raises MissingDependencyError without Model Optimizer, BackendError if it fails or its graph breaks
    TensorRT's rules.
    """
    tried = {}
    for name, tower in towers.items():
        written = ours.towers[name].variant
        for file in written.files:
            (folder / file.path).unlink()
        path = folder / written.files[0].path
        graph = quantize_with_modelopt(tower.graph, tower.source.calibration)
        require_tensorrt(graph, f"{path.name} by Model Optimizer")
        variant = save_variant(tower.source, graph, path, written.precision, written.target)
        tried[name] = prove_tower(tower, variant, folder)
    found = zero_shot(tried, answers)
    failures = gate_failures({name: tower.parity for name, tower in tried.items()}, found, gate)
    return ProvenVariant(tried, found, tuple(failures), (), beside=ours)
