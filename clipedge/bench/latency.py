"""Latency of a bundle's towers in one number each, for the proof of an export and for choosing between variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from safetensors import safe_open

from clipedge.bench.timing import timed
from clipedge.model import load
from clipedge.selftest import GOLDEN_NAME, TENSORS

__all__ = ["Latency", "measure", "tower_latencies"]


@dataclass(frozen=True)
class Latency:
    """Wall-clock time of one call, in milliseconds, over ``runs`` calls after warm-up."""

    median_ms: float
    p90_ms: float
    runs: int


def measure(call: Callable[[], object], seconds: float = 1.0) -> Latency:
    """Time ``call`` again and again for about ``seconds``."""
    times = 1000 * timed(call, seconds)
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
