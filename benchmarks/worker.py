"""Measure one contender in this process, which has to be a fresh one.

    PYTHON benchmarks/worker.py '{"contender": "ort-fp32", "shape": "ViT-B/32"}'

Prints one line of JSON as soon as the first JPEG has its label (the parent's clock stops there, which gives the cold
start). Then it takes jobs, a line of JSON each on stdin (see ``JOBS``), and answers each with a line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines import Engine, open_contender
from layout import held_out_pictures, model_folder


def latencies(engine: Engine, source: str, batch: int, seconds: float) -> list[float]:
    """Milliseconds of each call after a warm-up, for about ``seconds`` and at least one call.

    ``source``: "jpeg" (files to labels) or "tensor" (to embeddings).
    """
    paths = held_out_pictures()[:batch]
    tensors = engine.tensors(paths) if source == "tensor" else None
    call: Callable[[], object] = (lambda: engine.label(paths)) if tensors is None else (lambda: engine.embed(tensors))
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(round(1000 * (time.perf_counter() - start), 3))
    return times


def peak_memory_mb(engine: Engine) -> float:
    """The largest resident set of this process so far.

    From /proc: getrusage's figure starts with the parent's, from whose memory this process was started.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    raise RuntimeError("/proc/self/status has no VmHWM: the benchmark needs Linux")


def embeds(engine: Engine) -> list[list[float]]:
    """Of the held-out pictures, one at a time, as a camera delivers them.

    Dynamic quantization makes an answer depend on its batch-mates.
    """
    return [engine.embed_pictures([path])[0].tolist() for path in held_out_pictures()]


JOBS: dict[str, Callable[..., Any]] = {
    "latencies": latencies,
    "peak_memory_mb": peak_memory_mb,
    "embeds": embeds,
    "note": lambda engine: engine.note,
}


def main() -> None:
    arguments = json.loads(sys.argv[1])
    engine = open_contender(arguments["contender"], model_folder(arguments["shape"]))
    print(json.dumps({"first_label": engine.label(held_out_pictures()[:1])[0]}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(JOBS[job.pop("job")](engine, **job)), flush=True)


if __name__ == "__main__":
    main()
