"""Each engine, tried in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence

from clipedge.backends import BACKENDS
from clipedge.doctor.probe import Probe

__all__ = ["ENGINES", "probe_engines", "run_probe"]

ENGINES = tuple(dict.fromkeys((*BACKENDS, "tensorrt")))
SECONDS = 120.0  # a GPU's first call may compile for a minute


def probe_engines() -> tuple[Probe, ...]:
    return tuple(run_probe(name, [sys.executable, "-m", "clipedge.doctor.probe", name]) for name in ENGINES)


def run_probe(engine: str, command: Sequence[str], seconds: float = SECONDS) -> Probe:
    """What the command reports; "broken" if it dies, hangs, or says nothing that can be read."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return Probe(engine, "broken", None, f"did not answer within {seconds:g} seconds", {})
    if done.returncode < 0:
        return Probe(engine, "broken", None, f"ended its process: {_signal_name(-done.returncode)}", {})
    try:
        return Probe(**json.loads(done.stdout))
    except (ValueError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Probe(engine, "broken", None, f"ended with code {done.returncode}: {last}", {})


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name}, an instruction that this processor lacks" if name == "SIGILL" else name
