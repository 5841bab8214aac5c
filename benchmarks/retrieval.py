"""Retrieval from many vectors: recall, latency, memory and opening time of an index, exactly and by its graph.

    python benchmarks/retrieval.py [--vectors 100000] [--queries 300]

The vectors are drawn, not encoded: of D = 512 numbers, the sum of a direction that all share (one of whose numbers is
twelve times the others' spread, as CLIP's outlier channels are), of one of N / 50 cluster centres, and of noise, scaled
to unit length. Two of them have a mean cosine of 0.83. "Pictures" are queries drawn in the same way; "texts" share
another direction instead, so that all of their cosines are low, as between the towers of a CLIP. The truth is float32
search through all vectors as they were before they were rounded to float16.

Searching runs in a fresh process on one core. Writes results/retrieval.md and .json, and prints the former.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from layout import BUILD, RESULTS
from machine import describe_machine
from numpy.typing import NDArray

from clipedge.index import Index

SPACE, DIM, BLOCK, TOP = "0" * 64, 512, 10_000, 10
FOLDER = BUILD / "retrieval"
Vectors = NDArray[np.float32]


def draw(count: int, clusters: int, seed: int, texts: bool = False) -> Vectors:
    """(count, 512) unit vectors, as the docstring of this file says."""
    fixed = np.random.default_rng(0)
    shared, gap = fixed.normal(size=DIM), fixed.normal(size=DIM)
    shared[7] = 12
    centres = np.random.default_rng(1).normal(size=(clusters, DIM)).astype(np.float32) / np.sqrt(DIM)
    generator = np.random.default_rng([2, seed])
    common = 1.5 * gap / np.linalg.norm(gap) if texts else 2.1 * shared / np.linalg.norm(shared)
    noise = generator.normal(size=(count, DIM)) / np.sqrt(DIM)
    vectors = common + 0.75 * centres[generator.integers(0, clusters, count)] + 0.6 * noise
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def blocks(count: int) -> Iterator[tuple[int, Vectors]]:
    for start in range(0, count, BLOCK):
        yield start, draw(min(BLOCK, count - start), max(count // 50, 1), start)


def build(count: int, queries: Mapping[str, Vectors]) -> dict[str, NDArray[np.int64]]:
    """Write the index without a graph; returns the ten best rows of each query by float32 search."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    best = {kind: (np.empty((len(some), 0)), np.empty((len(some), 0), np.int64)) for kind, some in queries.items()}
    with Index.create(FOLDER, SPACE, DIM) as index:
        for start, vectors in blocks(count):
            index.add([f"{row:08d}" for row in range(start, start + len(vectors))], vectors)
            for kind, some in queries.items():
                rows = np.broadcast_to(np.arange(start, start + len(vectors)), (len(some), len(vectors)))
                scores = np.hstack([best[kind][0], some @ vectors.T])
                found = np.hstack([best[kind][1], rows])
                order = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
                best[kind] = np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)
    return {kind: rows for kind, (_, rows) in best.items()}


def build_graph() -> float:
    start = time.perf_counter()
    with Index.open(FOLDER, SPACE, writable=True) as index:
        index.build_graph()
    return time.perf_counter() - start


def search(exact: bool, count: int, queries: int) -> dict[str, Any]:
    """What a fresh process on one core takes to open the index and to search it; the rows that it finds."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    before = resident_mb()
    start = time.perf_counter()
    index = Index.open(FOLDER, SPACE)
    result: dict[str, Any] = {"open_s": time.perf_counter() - start}
    for kind in ("pictures", "texts"):
        vectors = draw(queries, max(count // 50, 1), count + 1, kind == "texts")
        index.search(vectors[:1], TOP, exact=exact)
        times, rows = [], []
        for vector in vectors:
            start = time.perf_counter()
            (hits,) = index.search(vector[None], TOP, exact=exact)
            times.append(1000 * (time.perf_counter() - start))
            rows.append([int(hit.key) for hit in hits])
        result[kind] = {"median_ms": statistics.median(times), "rows": rows}
    return {**result, "added_memory_mb": resident_mb() - before}


def resident_mb() -> float:
    """Resident memory of this process on Linux, the mapped pages that it has touched among it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def search_in_process(exact: bool, count: int, queries: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", "exact" if exact else "graph"]
    command += ["--vectors", str(count), "--queries", str(queries)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    outcome = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    found: dict[str, Any] = json.loads(outcome.stdout)
    return found


def measure(count: int, queries: int) -> dict[str, Any]:
    clusters = max(count // 50, 1)
    asked = {kind: draw(queries, clusters, count + 1, kind == "texts") for kind in ("pictures", "texts")}
    truth = build(count, asked)
    sample = draw(400, clusters, count + 2)
    results: dict[str, Any] = {
        "vectors": count,
        "queries": queries,
        "mean_cosine": float((sample[:200] @ sample[200:].T).mean()),
        "exact": search_in_process(True, count, min(queries, 50)),
        "graph_build_s": build_graph(),
    }
    results["graph"] = search_in_process(False, count, queries)
    results["graph_mb"] = sum(path.stat().st_size for path in FOLDER.glob("graph-*")) / 2**20
    for how in ("exact", "graph"):
        for kind, rows in truth.items():
            found = results[how][kind].pop("rows")
            shared = [len({*first} & {*second.tolist()}) for first, second in zip(found, rows, strict=False)]
            results[how][kind]["recall"] = sum(shared) / (TOP * len(shared))
    return results


def table(results: list[dict[str, Any]], machine: Mapping[str, Any]) -> str:
    lines = [
        "# Retrieval",
        "",
        f"{machine['cpu']}, one core, {machine['date']}. Made by `python benchmarks/retrieval.py`, which says how the",
        f"vectors are drawn (512 numbers, mean cosine {results[-1]['mean_cosine']:.2f}).",
        "",
        "| vectors | search | recall@10 pictures | texts | median ms pictures | texts | opened in | memory added |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for how in ("exact", "graph"):
            found = result[how]
            pictures, texts = found["pictures"], found["texts"]
            lines.append(
                f"| {result['vectors']:,} | {how} | {pictures['recall']:.4f} | {texts['recall']:.4f} | "
                f"{pictures['median_ms']:.2f} | {texts['median_ms']:.2f} | "
                f"{found['open_s']:.2f} s | {found['added_memory_mb']:.0f} MB |"
            )
    built = ", ".join(
        f"of {result['vectors']:,} vectors {result['graph_build_s']:.0f} s and {result['graph_mb']:.0f} MB"
        for result in results
    )
    return "\n".join([*lines, "", f"Building the graph {built}, on all {machine['cores']} cores.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vectors", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--worker", choices=["exact", "graph"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        queries = arguments.queries
        print(json.dumps(search(arguments.worker == "exact", arguments.vectors[0], queries)))
        return
    results = [measure(count, arguments.queries) for count in arguments.vectors]
    machine = describe_machine()
    report = table(results, machine)
    RESULTS.mkdir(exist_ok=True)
    document = json.dumps({"machine": machine, "results": results}, indent=2)
    (RESULTS / "retrieval.json").write_text(document + "\n", encoding="utf-8")
    (RESULTS / "retrieval.md").write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
