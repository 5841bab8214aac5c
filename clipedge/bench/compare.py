"""Two benchmarks beside each other: ratios of latencies, and what else differs between the runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipedge.bench.record import FORMAT
from clipedge.errors import UsageError

__all__ = ["Comparison", "Ratio", "Side", "compare", "comparison_lines", "read_side"]

CLOCKS = 1.05  # a ratio of clocks from which on they differ
Key = tuple[str, str, str]  # source, scenario, what: "p50 (ms)", "samples/s", "J a sample"
Figure = tuple[float, float, float]  # value, low, high; without an interval, low and high are the value


@dataclass(frozen=True)
class Side:
    """What a comparison needs of a record. ``facts`` should be equal on both sides, ``megahertz`` nearly so."""

    name: str
    facts: Mapping[str, str]
    megahertz: Mapping[str, float]
    throttling: tuple[str, ...]
    figures: Mapping[Key, Figure]


@dataclass(frozen=True)
class Ratio:
    """The second side's figure over the first's. ``interval`` is None for figures that have none.

    Of latencies it is a 95 % interval, from those of both (Zou and Donner 2008, "Construction of confidence limits
    about effect measures: a general approach", on logarithms). It knows the noise within the runs, not between them.
    """

    source: str
    scenario: str
    what: str
    first: float
    second: float
    ratio: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    first: str
    second: str
    warnings: tuple[str, ...]
    ratios: tuple[Ratio, ...]


def compare(first: Side, second: Side) -> Comparison:
    """Raises UsageError if the two have no measurement in common."""
    keys = [key for key in first.figures if key in second.figures]
    if not keys:
        raise UsageError(f"{first.name} and {second.name} have no measurement in common; run both with the same --from")
    ratios = tuple(_ratio(key, first.figures[key], second.figures[key]) for key in keys)
    return Comparison(first.name, second.name, tuple(_warnings(first, second)), ratios)


def comparison_lines(found: Comparison) -> list[str]:
    lines = [f"warning: {line}" for line in found.warnings]
    lines += [f"{'':34}{'first':>10}{'second':>10}   second / first, 95 % interval"]
    for item in found.ratios:
        name = f"{item.source}, {item.scenario}, {item.what}"
        bounds = "" if item.interval is None else f"  {item.interval[0]:.3f} to {item.interval[1]:.3f}"
        within = item.interval is not None and item.interval[0] <= 1 <= item.interval[1]
        noise = "  within noise" if within else ""
        lines.append(f"{name:34}{item.first:>10.4g}{item.second:>10.4g}   {item.ratio:.3f}{bounds}{noise}")
    return [*lines, f"first: {found.first}; second: {found.second}"]


def read_side(path: str) -> Side:
    """A file that ``clipedge bench --json`` printed. Raises UsageError if it is none."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        version = document["format"]
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}); expected what `clipedge bench --json` prints"
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UsageError(f"{path} is no benchmark; expected what `clipedge bench --json` prints") from None
    if version != FORMAT:
        raise UsageError(f"{path} has format {version!r}, this clipedge reads format {FORMAT}: measure again")
    try:
        return _side(path, document)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise UsageError(f"{path} is damaged ({type(error).__name__}: {error}): measure again") from None


def _side(path: str, document: Mapping[str, Any]) -> Side:
    machine, clocks = document["machine"], document["clocks"]
    jetson = machine["jetson"] or {}
    mode = jetson.get("power_mode") or {}
    facts = {
        "model": document["space_id"],
        "variant": document["variant"],
        "engine": f"{document['engine']['backend']} {document['engine']['version']}",
        "device": document["engine"]["device"],
        "arithmetic": document["engine"]["arithmetic"],
        "threads": document["threads"],
        "spinning": document["spinning"],
        "preprocessing": document["preprocess"],
        "picture": document["picture"],
        "processor": machine["processor"]["name"],
        "cores": machine["processor"]["cores"],
        "board": machine["board"],
        "system": machine["system"],
        "power mode": mode.get("name"),
        "governor": clocks[0]["governor"],
    }
    megahertz = {
        f"{name} {when}": float(found[key])
        for found, when in zip(clocks, ("before", "after"), strict=True)
        for key, name in (("cpu", "CPU"), ("gpu", "GPU"))
        if found[key] is not None
    }
    figures: dict[Key, Figure] = {}
    for item in document["measurements"]:
        source, scenario = str(item["source"]), str(item["scenario"])
        for found in item["percentiles"]:
            figures[source, scenario, f"p{found['percent']} (ms)"] = _figure(found["ms"], *found["interval"])
        figures[source, scenario, "samples/s"] = _figure(item["throughput"])
        if item["joules"] is not None:
            figures[source, scenario, "J a sample"] = _figure(item["joules"])
    name = f"{path} ({document['bundle']} {document['variant']})"
    return Side(
        name,
        {key: str(value) for key, value in facts.items()},
        megahertz,
        tuple(map(str, document["throttling"])),
        figures,
    )


def _figure(value: float, low: float | None = None, high: float | None = None) -> Figure:
    found = float(value), float(value if low is None else low), float(value if high is None else high)
    if not 0 < found[1] <= found[0] <= found[2] < math.inf:
        raise ValueError(f"expected a positive figure within its interval, found {found}")
    return found


def _ratio(key: Key, first: Figure, second: Figure) -> Ratio:
    value = second[0] / first[0]
    if first[1] == first[2] or second[1] == second[2]:
        return Ratio(*key, first[0], second[0], value, None)
    below = math.hypot(math.log(second[0] / second[1]), math.log(first[2] / first[0]))
    above = math.hypot(math.log(second[2] / second[0]), math.log(first[0] / first[1]))
    return Ratio(*key, first[0], second[0], value, (value * math.exp(-below), value * math.exp(above)))


def _warnings(first: Side, second: Side) -> list[str]:
    """What else differs: the ratios are then of that, too."""
    lines = [
        f"{what} differs: {value} and {second.facts[what]}"
        for what, value in first.facts.items()
        if value != second.facts[what]
    ]
    for name in sorted(first.megahertz.keys() & second.megahertz.keys()):
        low, high = sorted((first.megahertz[name], second.megahertz[name]))
        if low <= 0 or high / low >= CLOCKS:
            lines.append(
                f"clock differs: {name} the run {first.megahertz[name]:.0f} and {second.megahertz[name]:.0f} MHz"
            )
    return lines + [f"{side.name}: {line}" for side in (first, second) for line in side.throttling]
