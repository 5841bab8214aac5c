"""The one timing loop."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_RUNS", "WARM_UP", "Times", "timed"]

WARM_UP = 3
MIN_RUNS = 11  # the fewest that support a median (clipedge.bench.percentiles)
Times = NDArray[np.float64]


def timed(call: Callable[[], object], seconds: float, warm_up: int = WARM_UP) -> Times:
    """Wall-clock seconds (N,) of each of N calls, one right after the other.

    After ``warm_up`` calls that do not count, for about ``seconds``, but at least ``MIN_RUNS`` times.
    """
    for _ in range(warm_up):
        call()
    times: list[float] = []
    clock = time.perf_counter
    end = clock() + seconds
    while len(times) < MIN_RUNS or clock() < end:
        start = clock()
        call()
        times.append(clock() - start)
    return np.array(times)
