"""`make bench`: ClipEdge beside its peers on this machine's processor, in one run.

    python benchmarks/run.py --peers .venv-peers/bin/python [--quick] [--rounds 3]

Every contender of ``layout.py`` runs in a fresh process in each round, one process at a time, in an order that is
rotated from round to round. Writes ``results/cpu.json``, ``cpu.md`` and ``cpu.png`` (with --quick ``quick.*``).
Exits with 1 if a contender could not be measured; a target that is not met is a result and no failure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from answers import answer_quality
from layout import CONTENDERS, PATCH_SIZES, REPOSITORY, RESULTS, Contender, model_folder
from machine import describe_machine
from plot import draw
from table import markdown
from targets import judge

BENCHMARKS = REPOSITORY / "benchmarks"
SECONDS = 1.0  # for each scenario of each process
REFERENCE = "transformers"  # its answers are the right ones


@dataclass(frozen=True)
class Settings:
    """What a run covers. ``pythons``: the interpreter of each environment."""

    shapes: tuple[str, ...]
    rounds: int
    seconds: float
    pythons: dict[str, str]


class WorkerError(Exception):
    """A contender's process failed; the message is the last line that it wrote."""


def prepare(settings: Settings) -> None:
    """Make pictures, checkpoints and models, each in the environment of its tools."""
    for environment, script in (("clipedge", "prepare.py"), ("peers", "prepare_peers.py")):
        subprocess.run([settings.pythons[environment], str(BENCHMARKS / script), *settings.shapes], check=True)


def run_worker(python: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run one contender in a fresh process. Its figures, and ``cold_start_ms`` by this process's clock."""
    command = [python, str(BENCHMARKS / "worker.py"), json.dumps(arguments)]
    start = time.perf_counter()
    # A file takes what libraries say on stderr: a pipe that nobody reads would fill and stop the process.
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        first = process.stdout.readline()
        cold_start = 1000 * (time.perf_counter() - start)
        rest, _ = process.communicate()
        if process.returncode != 0:
            errors.seek(0)
            raise WorkerError((errors.read().strip().splitlines() or ["it wrote nothing"])[-1])
    return {"cold_start_ms": round(cold_start, 1), **json.loads(first), **json.loads(rest)}


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
            for contender in rotated(CONTENDERS, turn, settings.rounds):
                if contender.name in missing:
                    continue
                arguments = {
                    "contender": contender.name,
                    "shape": shape,
                    "seconds": settings.seconds,
                    "answers": turn == 0,
                }
                try:
                    found = run_worker(settings.pythons[contender.environment], arguments)
                except WorkerError as error:
                    if contender.name == REFERENCE:
                        sys.exit(f"{contender.name}, which all answers are compared with, cannot run: {error}")
                    missing[contender.name] = str(error)
                    say(f"!! {contender.name} is NOT MEASURED: {error}")
                    continue
                figures[shape].setdefault(contender.name, []).append(found)
                say(f"round {turn + 1}/{settings.rounds}  {shape}  {contender.name:24} {brief(found)}")
    return figures, missing


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
