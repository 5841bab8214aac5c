"""What an export says of itself: the report of each variant, with latencies measured one after the other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipedge.export.checkpoints import Checkpoint
from clipedge.export.html import report_html
from clipedge.export.proof import latencies, tower_report
from clipedge.export.ranges import Calibrations
from clipedge.export.report import Beside, Report
from clipedge.export.streams import PixelStream
from clipedge.export.variants import PreparedTower, ProvenTower, ProvenVariant
from clipedge.manifest import Manifest
from clipedge.model import variant_name

__all__ = ["summarize", "write_reports"]


def summarize(
    folder: Path,
    checkpoint: Checkpoint,
    manifest: Manifest,
    towers: Mapping[str, PreparedTower],
    proven: Sequence[ProvenVariant],
    calibrations: Calibrations,
    proof: PixelStream,
) -> Report:
    """The report of the first variant, with those of the others in ``also``."""
    before = latencies("clipedge.export.source_latency", json.dumps(dataclasses.asdict(checkpoint.source)), *towers)
    reports = []
    for found in proven:
        image = found.towers["image"]
        after = latencies("clipedge.bench", str(folder), variant_name(image.variant), image.engine.name)
        reports.append(
            Report(
                model=checkpoint.name,
                precision=image.variant.precision,
                target=image.variant.target,
                engine=_engine(image),
                calibration=None if image.variant.precision == "fp32" else calibrations.description,
                proof=proof.description,
                unreadable=(*calibrations.unreadable, *proof.unreadable),
                towers={
                    name: tower_report(
                        towers[name].source.module,
                        [folder / entry.path for entry in tower.variant.files],
                        tower.parity,
                        tower.half.parity if tower.half else None,
                        before[name],
                        after[name],
                    )
                    for name, tower in found.towers.items()
                },
                zero_shot=found.zero_shot,
                failures=found.failures,
                provenance=manifest.provenance,
                layers=found.layers,
                kept=found.kept,
                quantizer=found.quantizer,
                beside=_beside(found.beside) if found.beside else None,
            )
        )
    return dataclasses.replace(reports[0], also=tuple(reports[1:]))


def _engine(tower: ProvenTower) -> str:
    """In what a tower was proven; of half precision also what the engine makes of it."""
    engine = f"{tower.engine.name} {tower.engine.version}"
    return f"{engine} ({tower.engine.arithmetic})" if tower.half else engine


def _beside(ours: ProvenVariant) -> Beside:
    parity = {name: tower.parity for name, tower in ours.towers.items()}
    return Beside("clipedge", parity, ours.zero_shot, ours.failures)


def write_reports(folder: Path, report: Report) -> None:
    """``report.json`` and ``report.html`` of the first variant; of a further one ``report.fp32.json``."""
    for index, found in enumerate((report, *report.also)):
        name = "report" if index == 0 else f"report.{found.variant_name}"
        # Names of files come with whatever bytes they have.
        (folder / f"{name}.json").write_text(found.to_json(), encoding="utf-8", errors="backslashreplace")
        (folder / f"{name}.html").write_text(report_html(found), encoding="utf-8", errors="backslashreplace")
