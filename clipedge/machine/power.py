"""What a Jetson draws while something runs: its rails are read ten times a second, on a thread of its own."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clipedge.machine.rails import Rail, find_rails, input_rails, read_rails
from clipedge.machine.tegrastats import parse_tegrastats

__all__ = ["Power", "PowerSource", "mean_power", "power_source", "recorded_power"]

INTERVAL = 0.1  # seconds
JOIN = 5.0  # for the thread to end: tegrastats is heard at its next line, which may never come
Watts = Mapping[str, float]


@dataclass(frozen=True)
class PowerSource:
    """Where power is read: "INA3221" in sysfs, or "tegrastats". ``stream`` yields watts by rail until it is stopped."""

    name: str
    stream: Callable[[threading.Event], Iterator[Watts]]


@dataclass(frozen=True)
class Power:
    """Mean watts by rail. ``total`` is the sum of the rails ``total_of``, the module's input; None if not known.

    It is what the whole module draws, idle parts and other programs included, and none of the carrier board.
    """

    source: str
    samples: int
    rails: Watts
    total: float | None
    total_of: tuple[str, ...]


def power_source(root: Path = Path("/")) -> PowerSource | None:
    """The rails in sysfs if they can be read, else tegrastats if it is there, else None: no power is measured."""
    rails = find_rails(root)
    if read_rails(rails):
        return PowerSource("INA3221", lambda stop: _of_sysfs(rails, stop))
    program = shutil.which("tegrastats")
    return PowerSource("tegrastats", partial(_of_tegrastats, program)) if program else None


@contextmanager
def recorded_power(source: PowerSource | None) -> Iterator[list[Watts]]:
    """The list that fills with samples inside the ``with``; it stays empty without a source."""
    samples: list[Watts] = []
    if source is None:
        yield samples
        return
    stop = threading.Event()
    thread = threading.Thread(target=lambda: samples.extend(source.stream(stop)), daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join(JOIN)


def mean_power(source: PowerSource | None, samples: Sequence[Watts]) -> Power | None:
    """None without a sample. A rail counts only if every sample has it."""
    if source is None or not samples:
        return None
    names = [name for name in samples[0] if all(name in sample for sample in samples)]
    rails = {name: statistics.fmean(sample[name] for sample in samples) for name in names}
    parts = input_rails(rails)
    return Power(source.name, len(samples), rails, sum(rails[name] for name in parts) if parts else None, parts)


def _of_sysfs(rails: tuple[Rail, ...], stop: threading.Event) -> Iterator[Watts]:
    while not stop.wait(INTERVAL):
        if watts := read_rails(rails):
            yield watts


def _of_tegrastats(program: str, stop: threading.Event) -> Iterator[Watts]:
    command = [program, "--interval", str(round(1000 * INTERVAL))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if stop.is_set():
                break
            if (found := parse_tegrastats(line)) and found.watts:
                yield found.watts
        process.terminate()
