"""Latency of a bundle's towers.

``python -m clipedge.bench BUNDLE [VARIANT [BACKEND]]`` prints it as JSON, from a process of its own: the thread pools
of two engines in one process disturb each other.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from safetensors import safe_open

from clipedge.model import load
from clipedge.selftest import GOLDEN_NAME, TENSORS

__all__ = ["Latency", "measure", "tower_latencies"]

WARM_UP = 3
MIN_RUNS = 10


@dataclass(frozen=True)
class Latency:
    """Wall-clock time of one call, in milliseconds, over ``runs`` calls after warm-up."""

    median_ms: float
    p90_ms: float
    runs: int


def measure(call: Callable[[], object], seconds: float = 1.0) -> Latency:
    """Time ``call`` again and again for about ``seconds``, at least ``MIN_RUNS`` times."""
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < MIN_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return Latency(float(np.median(times)), float(np.percentile(times, 90)), len(times))


def tower_latencies(folder: str, variant: str | None = None, backend: str | None = None) -> dict[str, Latency]:
    """Latency of each tower for one input, by tower name; variant and backend are those of ``load``."""
    clip = load(folder, variant=variant, backend=backend)
    latencies: dict[str, Latency] = {}
    for tower in sorted({variant.tower for variant in clip.manifest.variants}):
        engine = clip.engine(tower)
        with safe_open(clip.bundle.checked_file(GOLDEN_NAME), framework="numpy") as golden:
            one = golden.get_slice(TENSORS[tower][0])[:1]
        latencies[tower] = measure(lambda engine=engine, one=one: engine(one))  # type: ignore[misc]
    return latencies


if __name__ == "__main__":
    print(json.dumps({tower: asdict(latency) for tower, latency in tower_latencies(*sys.argv[1:]).items()}))
