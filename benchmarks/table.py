"""A run's results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layout import CONTENDERS, contender_named

COLUMNS = {
    "tensor_1_ms": "tensor, batch 1",
    "tensor_8_ms": "tensor, batch 8",
    "jpeg_1_ms": "JPEG to label",
    "jpeg_8_ms": "8 JPEGs to labels",
    "cold_start_ms": "cold start",
    "peak_1_mb": "peak memory",
    "peak_8_mb": "peak, batch 8",
    "centred_cosine": "centred cosine",
}
VERDICTS = {True: "met", False: "**not met**", None: "**not measured**"}


def markdown(results: Mapping[str, Any]) -> str:
    """The page: the machine, one table for each shape, the targets, every contender's settings."""
    lines = [*_machine(results), ""]
    for shape, contenders in results["shapes"].items():
        lines += [f"### {shape}", "", *_shape_table(contenders), ""]
    lines += [
        "Milliseconds and MB, medians; smaller is better. Centred cosine: the median over 32 held-out JPEGs, against",
        "transformers' float32 embeddings of the same files, so preprocessing is in it.",
        "",
        "### Targets",
        "",
        *target_table(results["targets"]),
        "",
    ]
    if results["not_measured"]:
        lines += ["### Not measured", ""]
        lines += [f"- {contender_named(name).title} (`{name}`): {why}" for name, why in results["not_measured"].items()]
        lines += [""]
    return "\n".join([*lines, *_notes(results["shapes"])]) + "\n"


def target_table(targets: list[Mapping[str, Any]]) -> list[str]:
    """Every ratio with its limit and what came of it; before it, how many were kept."""
    kept = sum(target["met"] is True for target in targets)
    return [
        f"{kept} of {len(targets)} met. ClipEdge INT8 divided by the peer, in time:",
        "",
        "| what | shape | figure | peer | ratio | at most | |",
        "|---|---|---|---|---:|---:|---|",
        *(
            f"| {target['text']} | {target['shape']} | {COLUMNS[target['figure']]} | {target['fastest_peer'] or '–'} "  # noqa: RUF001
            f"| {_number(target['ratio'], 3)} | {target['limit']:.2f} | {VERDICTS[target['met']]} |"
            for target in targets
        ),
    ]


def _machine(results: Mapping[str, Any]) -> list[str]:
    machine = results["machine"]
    vnni = "yes" if machine["vnni"] else "no"
    return [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, VNNI: {vnni} "
        f"({', '.join(machine['instruction_sets'])}).",
        f"{machine['system']}, Python {machine['python']}; {machine['date']}; rounds: {results['rounds']}.",
    ]


def _shape_table(contenders: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        "| | runtime | " + " | ".join(COLUMNS.values()) + " |",
        "|---|---|" + "---:|" * len(COLUMNS),
        *(
            f"| {item.title} | {item.runtime} | {_cells(contenders[item.name])} |"
            for item in CONTENDERS
            if item.name in contenders
        ),
    ]


def _cells(figures: Mapping[str, Any]) -> str:
    digits = {"centred_cosine": 4, "cold_start_ms": 0, "peak_1_mb": 0, "peak_8_mb": 0}
    return " | ".join(_number(figures.get(name), digits.get(name, 1)) for name in COLUMNS)


def _notes(shapes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    contenders = next(iter(shapes.values()))
    return ["### Settings", "", *(f"- `{name}`: {figures['note']}" for name, figures in contenders.items())]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"  # noqa: RUF001
