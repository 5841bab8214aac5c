"""A whole benchmark: what was measured, on what, with what, and how the machine fared."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clipedge import __version__
from clipedge.backends import engine_facts
from clipedge.bench.inputs import Picture, query_from
from clipedge.bench.scenarios import METRIC_PERCENTS, Measurement, run_scenario
from clipedge.machine.clocks import Clocks, read_clocks
from clipedge.machine.describe import Machine, describe_machine
from clipedge.machine.memory import peak_memory_mb
from clipedge.machine.power import power_source
from clipedge.machine.throttling import read_throttling, throttled_between
from clipedge.model import Clip

__all__ = ["FORMAT", "Record", "engine_line", "machine_facts", "notes", "record_lines", "run_benchmark"]

FORMAT = 1
SLOWED = 1.1  # a drift from which on the machine is suspected of being slowed down
BUSY = 0.3  # running programs a core


@dataclass(frozen=True)
class Record:
    """``load`` is the load average of the minute before, ``clocks`` are before and after, and ``throttling`` has a line
    for each sign that the machine was slowed down.

    ``peak_memory_mb`` is the process's, with Python, the engine and the pictures, and without a GPU's own memory.
    """

    format: int
    clipedge: str
    created: str
    bundle: str
    space_id: str
    variant: str
    engine: dict[str, str]
    threads: int | None
    spinning: bool
    preprocess: str
    picture: str
    machine: Machine
    load: float | None
    clocks: tuple[Clocks, Clocks]
    throttling: tuple[str, ...]
    peak_memory_mb: float | None
    measurements: tuple[Measurement, ...]


def run_benchmark(
    clip: Clip,
    picture: Picture,
    sources: Sequence[str],
    scenarios: Sequence[str],
    seconds: float,
    show: Callable[[str], None] = lambda line: None,
) -> Record:
    """Each scenario from each source, about ``seconds`` long; ``show`` is told what comes next."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    power, before = power_source(), read_clocks()
    found: list[Measurement] = []
    signs: list[str] = []
    for source in sources:
        query = query_from(clip, source, picture)
        for scenario in scenarios:
            show(f"{scenario} from {source}")
            state = read_throttling()
            found.append(run_scenario(source, scenario, query, seconds, power))
            signs += [f"{scenario} from {source}: {line}" for line in throttled_between(state, read_throttling())]
    clocks = (before, read_clocks())
    signs += [
        f"{item.scenario} from {item.source} became slower as it ran, by {item.drift - 1:.0%}: heat, or other programs"
        for item in found
        if item.drift >= SLOWED
    ]
    return Record(
        format=FORMAT,
        clipedge=__version__,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        bundle=clip.bundle.folder.resolve().name,
        space_id=clip.manifest.space_id,
        variant=clip.image_variant,
        engine=engine_facts(clip.image_engine),
        threads=clip.engine_options.threads,
        spinning=clip.engine_options.spinning,
        preprocess=clip.preprocess,
        picture=picture.description,
        machine=describe_machine(),
        load=load,
        clocks=clocks,
        throttling=tuple(signs),
        peak_memory_mb=peak_memory_mb(),
        measurements=tuple(found),
    )


def record_lines(record: Record) -> list[str]:
    """For a terminal."""
    lines = [
        f"{record.bundle} {record.variant}, {engine_line(record)}",
        *(f"  {name:12}{value}" for name, value in machine_facts(record)),
        "",
        f"  {'':22}{'queries':>8}{'p50 (ms)':>10}{'p90':>9}{'p99':>9}{'mean':>9}{'samples/s':>11}",
    ]
    lines += [_row(item) for item in record.measurements]
    lines += ["", *(f"  {line}" for line in notes(record))]
    return lines


def engine_line(record: Record) -> str:
    engine = record.engine
    threads = f"{record.threads} threads" if record.threads else "one thread per core"
    return f"{engine['backend']} {engine['version']} ({engine['device']}, {threads}), {engine['arithmetic']}"


def machine_facts(record: Record) -> list[tuple[str, str]]:
    """(what, value) of the machine and of what was fed."""
    machine, (before, after) = record.machine, record.clocks
    cpu = f"{machine.processor.name}, {machine.processor.cores} cores"
    facts = [("processor", cpu), ("system", f"{machine.system}, Python {machine.python}")]
    if machine.jetson is not None:
        jetson = machine.jetson
        mode = jetson.power_mode.name if jetson.power_mode else "power mode unknown"
        facts.append(("board", f"{jetson.model}, L4T {jetson.release or 'unknown'}, {mode}"))
    facts.append(("clocks", _clocks_line(before, after)))
    if record.peak_memory_mb is not None:
        facts.append(("peak memory", f"{record.peak_memory_mb:.0f} MB (the whole process)"))
    return [*facts, ("picture", f"{record.picture}; {record.preprocess} preprocessing")]


def notes(record: Record) -> list[str]:
    """What a reader has to know: signs of throttling, percentiles that are missing, power."""
    lines = [f"slowed down: {line}" for line in record.throttling]
    if record.load is not None and record.load > BUSY * record.machine.processor.cores:
        lines.insert(0, f"the machine was busy before the run: load {record.load:.1f} on its cores")
    for item in record.measurements:
        percent = METRIC_PERCENTS.get(item.scenario)
        if percent is not None and percent in item.needed:
            seconds = item.needed[percent] * item.seconds / item.queries
            lines.append(
                f"{item.scenario} from {item.source}: p{percent} takes {item.needed[percent]} queries, "
                f"found {item.queries}: --seconds {seconds + 1:.0f}"
            )
        if item.power is not None:
            lines.append(f"{item.scenario} from {item.source}: {_power_line(item)}")
    return lines or ["no sign that the machine was slowed down"]


def _power_line(item: Measurement) -> str:
    assert item.power is not None
    rails = ", ".join(f"{name} {watts:.2f} W" for name, watts in item.power.rails.items())
    if item.power.total is None or item.joules is None:
        return f"{rails} ({item.power.source}); which of them add up is not known for this board"
    return f"{item.power.total:.2f} W, {1000 * item.joules:.1f} mJ a sample, idle power included ({rails})"


def _clocks_line(before: Clocks, after: Clocks) -> str:
    parts = []
    for name, first, last, most in (
        ("CPU", before.cpu, after.cpu, before.cpu_max),
        ("GPU", before.gpu, after.gpu, before.gpu_max),
    ):
        if first is not None and last is not None:
            limit = f" of at most {most:.0f}" if most is not None else ""
            parts.append(f"{name} {first:.0f} MHz before, {last:.0f} after{limit}")
    return (
        "; ".join([*parts, *([f"governor {before.governor}"] if before.governor else [])]) or "not told by this machine"
    )


def _row(item: Measurement) -> str:
    cells = "".join(
        f"{'-' if (found := item.percentile(percent)) is None else format(found.ms, '.2f'):>{width}}"
        for percent, width in ((50, 10), (90, 9), (99, 9))
    )
    name = f"{item.source}, {item.scenario}"
    return f"  {name:22}{item.queries:>8}{cells}{item.mean_ms:>9.2f}{item.throughput:>11.1f}"
