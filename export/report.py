"""The proof of one export, as a person reads it and as a program does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clipedge.calibration.half.plan import KeptOperation
from clipedge.calibration.sensitivity import LayerProfile
from clipedge.export.checkpoints.licenses import License, find_license
from clipedge.export.choice import Choice, choice_lines
from clipedge.export.verify import GATE, Parity, ZeroShot
from clipedge.manifest import Provenance

__all__ = ["COSTLY_LAYERS", "Beside", "Report", "TowerReport", "report_lines"]

COSTLY_LAYERS = 5  # that are named when an export fails
NAMED_OPERATIONS = 5  # that half precision left in float32; report.json has all


@dataclass(frozen=True)
class TowerReport:
    """One tower, source model against exported model.

    Bytes are of the float32 parameters and of the exported file. Latencies are medians for one input in
    milliseconds: the source in eager PyTorch, the exported graph in its engine, one after the other, each in a
    process of its own, on all cores. ``half_parity``: of a graph in half precision, computed as such
    (``clipedge.calibration.half.evaluate``).
    """

    parity: Parity
    source_bytes: int
    exported_bytes: int
    source_latency_ms: float
    exported_latency_ms: float
    half_parity: Parity | None = None


@dataclass(frozen=True)
class Beside:
    """What another quantizer made of the same model, proven on the same inputs: parity by tower, and failures."""

    quantizer: str
    parity: dict[str, Parity]
    zero_shot: ZeroShot | None
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What an export is worth.

    ``unreadable`` has a line for each calibration and proof picture that was left out, ``failures`` are the lines in
    which the export stays below the gate, ``layers`` are the quantizable layers in graph order, and ``kept`` is what
    half precision could not hold and left in float32. With another ``quantizer`` than our own, what ours would have
    given is ``beside``, unless it makes no such graphs. ``choice`` says how ``--precision auto`` came to this variant.
    """

    model: str
    precision: str
    target: str
    engine: str
    calibration: str | None
    proof: str
    unreadable: tuple[str, ...]
    towers: dict[str, TowerReport]
    zero_shot: ZeroShot | None
    failures: tuple[str, ...]
    provenance: Provenance
    layers: tuple[LayerProfile, ...] = ()
    kept: tuple[KeptOperation, ...] = ()
    quantizer: str = "clipedge"
    beside: Beside | None = None
    also: tuple[Report, ...] = ()
    choice: Choice | None = None

    @property
    def license(self) -> License:
        """The source model's, which the bundle inherits."""
        return find_license(self.provenance.source_license)

    @property
    def calibration_verb(self) -> str:
        """What was done with the calibration pictures."""
        return "checked for overflow on" if self.precision == "fp16" else "calibrated on"

    @property
    def variant_name(self) -> str:
        return self.precision if self.target == "any" else f"{self.precision}.{self.target}"

    @property
    def all_failures(self) -> tuple[str, ...]:
        """Of every variant; with several, each line begins with the variant's name."""
        if not self.also:
            return self.failures
        return tuple(f"{found.variant_name}: {line}" for found in (self, *self.also) for line in found.failures)

    @property
    def passed(self) -> bool:
        """Whether every variant reaches the gate."""
        return not self.all_failures

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "license": dataclasses.asdict(self.license), "passed": self.passed}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


def report_lines(report: Report) -> list[str]:
    """The report as a table for a terminal."""
    lines = [
        f"{report.model} -> {report.precision}, target {report.target}, proven in {report.engine}",
        *(["  quantized by NVIDIA's Model Optimizer"] if report.quantizer == "modelopt" else []),
        *([f"  {report.calibration_verb} {report.calibration}"] if report.calibration else []),
        f"  proven on {report.proof}",
        *([f"  its licence restricts its use, {report.license}"] if report.license.restricts else []),
        "",
        f"  {'':34}{'source':>12}{'exported':>12}",
    ]
    for name, tower in report.towers.items():
        lines += _tower_lines(name, tower)
    if report.zero_shot:
        lines += _zero_shot_lines(report.zero_shot)
    if report.beside:
        lines += _beside_lines(report, report.beside)
    if kept := [layer for layer in report.layers if layer.in_float]:
        share = sum(layer.multiply_adds for layer in kept) / sum(layer.multiply_adds for layer in report.layers)
        names = ", ".join(f"{layer.tower} {layer.layer}" for layer in kept)
        lines.append(f"  left in float, {100 * share:.1f} % of the multiply-adds: {names}")
    if report.kept:
        lines.append(f"  left in float32, since half precision cannot hold them: {kept_names(report.kept)}")
    if report.choice:
        lines += choice_lines(report.choice)
    if report.unreadable:
        lines.append(f"  pictures that cannot be read and were left out: {len(report.unreadable)}")
        lines += [f"    {line}" for line in report.unreadable[:5]]
        lines += [f"    ... and {len(report.unreadable) - 5} more"] if len(report.unreadable) > 5 else []
    lines += [
        "",
        "  PASSED: the exported model gives the source model's answers" if not report.failures else "  FAILED",
    ]
    lines += [f"    {failure}" for failure in report.failures]
    costs = sorted(((layer.cost or 0.0, layer) for layer in report.layers), key=lambda item: -item[0])
    if report.failures and costs:
        named = ", ".join(f"{layer.tower} {layer.layer} ({cost:.4f})" for cost, layer in costs[:COSTLY_LAYERS])
        lines.append(f"    layers that cost most (1 - centred cosine, each alone in INT8): {named}")
    for other in report.also:
        lines += ["", *report_lines(other)]
    return lines


def _tower_lines(name: str, tower: TowerReport) -> list[str]:
    parity = tower.parity
    return [
        _row(f"{name} tower, size (MB)", tower.source_bytes / 1e6, tower.exported_bytes / 1e6, ".2f"),
        _row(f"{name} tower, latency (ms)", tower.source_latency_ms, tower.exported_latency_ms, ".2f"),
        _row(f"{name} tower, median cosine", None, parity.median_cosine, ".5f"),
        _row("    centred, median", None, parity.median_centred_cosine, ".5f"),
        _row("    centred, 1st percentile", None, parity.p1_centred_cosine, ".5f"),
        _row("    same nearest neighbour (%)", None, 100 * parity.neighbour_overlap, ".1f"),
        *(_half_lines(tower.half_parity) if tower.half_parity else []),
    ]


def _half_lines(parity: Parity) -> list[str]:
    return [
        f"    in real half precision, {parity.samples} inputs",
        _row("    centred, median", None, parity.median_centred_cosine, ".5f"),
        _row("    centred, 1st percentile", None, parity.p1_centred_cosine, ".5f"),
    ]


def kept_names(kept: Sequence[KeptOperation]) -> str:
    """The first operations that stayed in float32 with their reasons, and how many more."""
    named = [f"{item.tower} {item.operation} ({item.reason})" for item in kept[:NAMED_OPERATIONS]]
    more = f", and {len(kept) - len(named)} more" if len(kept) > len(named) else ""
    return ", ".join(named) + more


def _zero_shot_lines(zero_shot: ZeroShot) -> list[str]:
    lines = [_row(f"same top-1 of {zero_shot.labels} labels (%)", None, 100 * zero_shot.agreement, ".1f")]
    if zero_shot.source_accuracy is not None and zero_shot.exported_accuracy is not None:
        accuracies = 100 * zero_shot.source_accuracy, 100 * zero_shot.exported_accuracy
        lines.append(_row(f"zero-shot top-1, {zero_shot.samples} pictures (%)", *accuracies, ".2f"))
    if zero_shot.drop_points is not None and zero_shot.drop_interval is not None:
        low, high = zero_shot.drop_interval
        lines.append(
            f"  {'drop in points (95 % interval)':34}{'':12}{zero_shot.drop_points:12.2f}  ({low:.2f} to {high:.2f})"
        )
        if zero_shot.samples < GATE.min_pictures:
            lines.append(f"    (not gated: that takes {GATE.min_pictures} labelled proof pictures)")
    return lines


def _beside_lines(report: Report, other: Beside) -> list[str]:
    lines = ["", f"  {'quantized by':34}{report.quantizer:>12}{other.quantizer:>12}"]
    for name, parity in other.parity.items():
        found = report.towers[name].parity
        lines += [
            _row(f"{name} tower, centred, median", found.median_centred_cosine, parity.median_centred_cosine, ".5f"),
            _row("    1st percentile", found.p1_centred_cosine, parity.p1_centred_cosine, ".5f"),
        ]
    if report.zero_shot and other.zero_shot:
        agreement = 100 * report.zero_shot.agreement, 100 * other.zero_shot.agreement
        lines.append(_row("same top-1 as the source (%)", *agreement, ".1f"))
        if report.zero_shot.exported_accuracy is not None and other.zero_shot.exported_accuracy is not None:
            accuracies = 100 * report.zero_shot.exported_accuracy, 100 * other.zero_shot.exported_accuracy
            lines.append(_row("zero-shot top-1 (%)", *accuracies, ".2f"))
    return lines


def _row(title: str, source: float | None, exported: float, style: str) -> str:
    left = "" if source is None else format(source, style)
    return f"  {title:34}{left:>12}{exported:>12{style}}"
