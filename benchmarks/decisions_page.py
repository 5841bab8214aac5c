"""The tables of benchmarks/decisions.py."""

from __future__ import annotations

from typing import Any

from publish import target_lines

from clipedge.evaluation.intervals import in_percent, in_points

__all__ = ["markdown"]


def markdown(document: dict[str, Any], rows: list[Any], several: list[Any]) -> str:
    """``rows`` and ``several`` are decisions.Row and decisions.Several, ``document`` has what else there is."""
    machine = document["machine"]
    lines = [
        "# Decisions",
        "",
        f"Demonstration model; {document['known']:,} scenes of known and {document['unknown']:,} of unknown shapes.",
        "Fitted on other scenes, and with other unknown shapes than those that its rule then meets (two fits).",
        "In percent, gains in points, 95 % intervals. Plain: maximum probability with one threshold.",
        f"{machine['cpu']}, {machine['date']}.",
        "",
        "| model | labels | threshold | recall, plain | recall, ours "
        "| unknown rejected, plain | unknown rejected, ours | gain |",
        "|---|---|---|---:|---:|---:|---:|---:|",
        *(line for row in rows for line in _rejections(row)),
        "",
        "| model | labels | " + " | ".join(f"{shape}: plain, ours" for shape in rows[0].by_shape) + " |",
        "|---|---|" + "---:|" * len(rows[0].by_shape),
        *map(_shapes, rows),
        "",
        "The share of each unknown shape that is rejected at 95 % recall, in percent.",
        "",
        "| model | labels | accuracy among the labels | temperatures | floors | calibration error before | after |",
        "|---|---|---:|---:|---:|---:|---:|",
        *map(_calibration, rows),
        "",
        "Several labels to a picture, on scenes of one shape and of two. Said: how often a label is an answer for each",
        "time that it is there, of the least and of the most said label (1 is without bias). The fit sees scenes",
        "of one object, as folders named for one label have. Beside a second one every cosine is lower, and what was",
        "fitted holds back nearly every answer: a fit for several labels holds for pictures such as it was fitted on.",
        "",
        "| model | shapes | rule | precision | recall | F1 | said | unknown answered |",
        "|---|---|---|---:|---:|---:|---:|---:|",
        *map(_several, several),
        "",
        *target_lines(document["targets"]),
    ]
    return "\n".join(lines) + "\n"


def _rejections(row: Any) -> list[str]:
    return [
        f"| {row.model} | {row.bank} | {name} | {in_percent(part.plain_recall)} | {in_percent(part.recall)} "
        f"| {in_percent(part.plain_rejected)} | {in_percent(part.rejected)} | {in_points(part.gain)} |"
        for name, part in (("as fitted", row.as_fitted), ("at 95 %", row.at_recall))
    ]


def _shapes(row: Any) -> str:
    cells = " | ".join(f"{100 * plain:.0f}, {100 * ours:.0f}" for plain, ours in row.by_shape.values())
    return f"| {row.model} | {row.bank} | {cells} |"


def _calibration(row: Any) -> str:
    temperatures, floors = (", ".join(f"{v:.2f}" for v in values) for values in (row.temperatures, row.floors))
    before, after = row.calibration_error
    accuracy = in_percent(row.accuracy)
    return f"| {row.model} | {row.bank} | {accuracy} | {temperatures} | {floors} | {before:.3f} | {after:.3f} |"


def _several(row: Any) -> str:
    shares = " | ".join(f"{100 * value:.1f}" for value in (row.precision, row.recall, row.f1))
    least, most = row.said
    answered = 100 * row.unknown_answered
    return f"| {row.model} | {row.scenes} | {row.rule} | {shares} | {least:.2f} to {most:.2f} | {answered:.1f} |"
