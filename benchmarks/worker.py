"""Measure one contender in this process, which has to be a fresh one.

    PYTHON benchmarks/worker.py '{"contender": "ort-fp32", "shape": "ViT-B/32", "seconds": 2, "answers": true}'

Prints two lines of JSON on stdout: the first as soon as the first JPEG has its label (the parent's clock stops there,
which gives the cold start), the second with everything else.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP = 1  # after the label that stopped the parent's clock
MIN_CALLS = 3  # in each round


def latencies(call: Callable[[], object], seconds: float) -> list[float]:
    """Wall-clock milliseconds of each call, after warm-up, for about ``seconds`` and at least ``MIN_CALLS`` calls."""
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < MIN_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(round(1000 * (time.perf_counter() - start), 3))
    return times


def peak_memory_mb() -> float:
    """The largest resident set of this process so far.

    From /proc: getrusage's figure starts with the parent's, from whose memory this process was started.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    raise RuntimeError("/proc/self/status has no VmHWM: the benchmark needs Linux")


def measure(contender: str, shape: str, seconds: float, answers: bool) -> dict[str, Any]:
    """Latencies in milliseconds, peak memory in MB, and with ``answers`` the held-out pictures' embeddings."""
    from engines import open_contender
    from layout import BATCHES, contender_named, held_out_pictures, model_folder

    paths = held_out_pictures()
    engine = open_contender(contender, model_folder(shape))
    print(json.dumps({"first_label": engine.label(paths[:1])[0]}), flush=True)
    figures: dict[str, Any] = {"note": engine.note}
    for batch in BATCHES:  # the smallest first: the peak only grows
        chosen = paths[:batch]
        figures[f"jpeg_{batch}_ms"] = latencies(lambda chosen=chosen: engine.label(chosen), seconds)
        if contender_named(contender).from_tensor:
            tensors = engine.tensors(chosen)
            figures[f"tensor_{batch}_ms"] = latencies(lambda tensors=tensors: engine.embed(tensors), seconds)
        figures[f"peak_{batch}_mb"] = peak_memory_mb()
    if answers:
        # One at a time, as a camera delivers them: dynamic quantization makes an answer depend on its batch-mates.
        figures["embeds"] = [engine.embed_pictures([path])[0].tolist() for path in paths]
    return figures


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
