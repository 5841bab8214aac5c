"""`make bench`: ClipEdge beside its peers on this machine's processor, in one run.

    python benchmarks/run.py --peers .venv-peers/bin/python [--quick] [--rounds 3]

Every contender of ``layout.py`` has a fresh process in each round. The processes take short turns, in an order that is
rotated from round to round, and only one runs at a time (``turns.py``). All of a shape together take 10 GB. Writes
``results/cpu.json``, ``cpu.md`` and ``cpu.png`` (with --quick ``quick.*``). Exits with 1 if a contender could not be
measured; a target that is not met is a result and no failure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from answers import answer_quality
from layout import BATCHES, CONTENDERS, PATCH_SIZES, REPOSITORY, RESULTS, Contender, contender_named, model_folder
from machine import describe_machine
from plot import draw
from table import markdown
from targets import judge
from turns import Worker, WorkerError, running

BENCHMARKS = REPOSITORY / "benchmarks"
SECONDS = 0.4  # for each scenario of a turn
TURNS = {1: 3, 8: 1}  # in each round, by the batch
REFERENCE = "transformers"  # its answers are the right ones


@dataclass(frozen=True)
class Settings:
    """What a run covers. ``pythons``: the interpreter of each environment."""

    shapes: tuple[str, ...]
    rounds: int
    seconds: float
    pythons: dict[str, str]


def prepare(settings: Settings) -> None:
    """Make pictures, checkpoints and models, each in the environment of its tools."""
    for environment, script in (("clipedge", "prepare.py"), ("peers", "prepare_peers.py")):
        subprocess.run([settings.pythons[environment], str(BENCHMARKS / script), *settings.shapes], check=True)


def rotated(contenders: Sequence[Contender], turn: int, turns: int) -> list[Contender]:
    """Begin elsewhere in each of ``turns``: nobody always runs after the same neighbour's heat."""
    first = turn * len(contenders) // turns
    return [*contenders[first:], *contenders[:first]]


def measure(settings: Settings) -> tuple[dict[str, dict[str, list[dict[str, Any]]]], dict[str, str]]:
    """Every round's figures by shape and contender; and why the missing contenders are missing."""
    figures: dict[str, dict[str, list[dict[str, Any]]]] = {shape: {} for shape in settings.shapes}
    missing: dict[str, str] = {}
    for turn in range(settings.rounds):
        for shape in settings.shapes:
            contenders = [item for item in rotated(CONTENDERS, turn, settings.rounds) if item.name not in missing]
            with ExitStack() as processes:
                workers = start(contenders, shape, settings, processes, missing)
                found = one_round(workers, settings.seconds, missing)
                for name in found:
                    figures[shape].setdefault(name, []).append(found[name])
                    say(f"round {turn + 1}/{settings.rounds}  {shape}  {name:24} {brief(found[name])}")
                    if turn == 0:
                        found[name] |= {
                            "note": workers[name].ask(job="note"),
                            "embeds": workers[name].ask(job="embeds"),
                        }
    if REFERENCE in missing:
        sys.exit(f"{REFERENCE}, which all answers are compared with, cannot run: {missing[REFERENCE]}")
    for name, reason in missing.items():
        say(f"!! {name} is NOT MEASURED: {reason}")
    return {
        shape: {name: found[name] for name in found if name not in missing} for shape, found in figures.items()
    }, missing


def start(
    contenders: Sequence[Contender], shape: str, settings: Settings, processes: ExitStack, missing: dict[str, str]
) -> dict[str, Worker]:
    """A process for each contender, one after the other; why one could not start goes into ``missing``."""
    workers = {}
    for contender in contenders:
        say(f"starting {contender.name} for {shape}")
        try:
            worker = running(settings.pythons[contender.environment], contender.name, shape)
            workers[contender.name] = processes.enter_context(worker)
        except WorkerError as error:
            missing[contender.name] = str(error)
    return workers


def one_round(workers: Mapping[str, Worker], seconds: float, missing: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The figures of processes that take turns, so that a noisy minute of the machine is everybody's."""
    found: dict[str, dict[str, Any]] = {
        name: {"cold_start_ms": worker.cold_start_ms} for name, worker in workers.items()
    }
    for batch in BATCHES:  # the smallest first: the peak of memory only grows
        for _ in range(TURNS[batch]):
            for name, worker in workers.items():
                sources = ("jpeg", "tensor") if contender_named(name).from_tensor else ("jpeg",)
                try:
                    for source in sources:
                        times = worker.ask(job="latencies", source=source, batch=batch, seconds=seconds)
                        found[name].setdefault(f"{source}_{batch}_ms", []).extend(times)
                    found[name][f"peak_{batch}_mb"] = worker.ask(job="peak_memory_mb")
                except WorkerError as error:
                    missing[name] = str(error)
    return {name: figures for name, figures in found.items() if name not in missing}


def brief(found: dict[str, Any]) -> str:
    """One process's medians, for whoever watches."""
    return "  ".join(f"{name} {value:.0f}" for name, value in sorted(medians([found]).items()))


def medians(rounds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The median over rounds of each round's median, by the figure's name."""
    return {
        name: round(statistics.median(_middle(found[name]) for found in rounds), 2)
        for name in rounds[0]
        if name.endswith(("_ms", "_mb"))
    }


def _middle(figure: float | list[float]) -> float:
    return statistics.median(figure) if isinstance(figure, list) else figure


def summarise(figures: dict[str, dict[str, list[dict[str, Any]]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each shape: every contender's medians and the quality of its answers."""
    for shape, contenders in figures.items():
        labels = np.load(model_folder(shape) / "checkpoint" / "labels.npy")
        reference = np.array(contenders[REFERENCE][0]["embeds"])
        yield (
            shape,
            {
                name: {
                    **medians(rounds),
                    **answer_quality(reference, np.array(rounds[0]["embeds"]), labels),
                    "note": rounds[0]["note"],
                    "rounds": [
                        {key: value for key, value in found.items() if key not in ("embeds", "note")}
                        for found in rounds
                    ],
                }
                for name, rounds in contenders.items()
            },
        )


def write(name: str, results: dict[str, Any]) -> None:
    """Results as JSON, a table and a plot."""
    RESULTS.mkdir(exist_ok=True)
    data = RESULTS / f"{name}.json"
    data.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    data.with_suffix(".md").write_text(markdown(results), encoding="utf-8")
    draw(results, data.with_suffix(".png"))


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python of the peers' environment")
    parser.add_argument("--quick", action="store_true", help="one short round of ViT-B/32, for development")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    settings = Settings(
        shapes=("ViT-B/32",) if args.quick else tuple(PATCH_SIZES),
        rounds=1 if args.quick else args.rounds,
        seconds=SECONDS,
        pythons={"clipedge": sys.executable, "peers": args.peers},
    )
    prepare(settings)
    figures, missing = measure(settings)
    shapes = dict(summarise(figures))
    results = {
        "machine": describe_machine(),
        "rounds": settings.rounds,
        "seconds_per_scenario": settings.seconds,
        "shapes": shapes,
        "targets": judge(shapes),
        "not_measured": missing,
    }
    name = "quick" if args.quick else "cpu"
    write(name, results)
    print(Path(RESULTS / f"{name}.md").read_text(encoding="utf-8"))
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
