"""One engine of the retrieval benchmark in a process of its own: writes its files, or opens and searches them.

    python benchmarks/retrieval_worker.py build|search ENGINE FOLDER

Prints one JSON document. Runs in ClipEdge's environment or in the peers', whichever has the engine.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from retrieval_data import BLOCK, DIM, KINDS, TOP

SPACE = "0" * 64
# faiss's HNSW is built with its own defaults. Its effort of searching is, for each kind of query, the least of EFFORTS
# with which it finds what is asked of ClipEdge.
CONNECTIVITY, EFFORTS, RECALL = 32, (16, 32, 64, 128, 256, 512, 1024), 0.98

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Opened:
    """``search`` maps a query (1, D) to the ten best rows; ``set_effort`` is there if the engine has one to choose."""

    search: Callable[[Vectors], Rows]
    set_effort: Callable[[int], None] | None = None


def build_clipedge(folder: Path, vectors: Vectors) -> None:
    """The index without lists; these are an engine of their own and only added to it."""
    from clipedge.retrieval.index import Index

    with Index.create(folder / "clipedge", SPACE, DIM) as index:
        for start in range(0, len(vectors), BLOCK):
            some = np.array(vectors[start : start + BLOCK])
            index.add([f"{row:08d}" for row in range(start, start + len(some))], some)


def build_lists(folder: Path, vectors: Vectors) -> None:
    from clipedge.retrieval.index import Index

    with Index.open(folder / "clipedge", SPACE, writable=True) as index:
        index.build_lists(lambda done, total: print(f"{done} of {total}", file=sys.stderr, flush=True))


def open_clipedge(folder: Path, exact: bool) -> Opened:
    from clipedge.retrieval.index import Index

    index = Index.open(folder / "clipedge", SPACE)
    return Opened(lambda query: np.array([int(hit.key) for hit in index.search(query, TOP, exact=exact)[0]]))


def build_faiss(folder: Path, vectors: Vectors, graph: bool) -> None:
    import faiss

    index = faiss.IndexHNSWFlat(DIM, CONNECTIVITY) if graph else faiss.IndexFlatIP(DIM)
    for start in range(0, len(vectors), BLOCK):
        index.add(np.array(vectors[start : start + BLOCK]))
        print(f"{start} of {len(vectors)}", file=sys.stderr, flush=True)
    faiss.write_index(index, os.fspath(faiss_path(folder, graph)))


def open_faiss(folder: Path, graph: bool) -> Opened:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.read_index(os.fspath(faiss_path(folder, graph)))

    def set_effort(effort: int) -> None:
        index.hnsw.efSearch = effort

    return Opened(lambda query: index.search(query, TOP)[1][0], set_effort if graph else None)


def faiss_path(folder: Path, graph: bool) -> Path:
    return folder / f"faiss-{'hnsw' if graph else 'flat'}.index"


LIBRARIES = {"clipedge": ("clipedge.retrieval.index",), "faiss": ("faiss",)}
BUILDERS: dict[str, Callable[[Path, Vectors], None]] = {
    "clipedge-exact": build_clipedge,
    "clipedge-lists": build_lists,
    "faiss-flat": lambda folder, vectors: build_faiss(folder, vectors, False),
    "faiss-hnsw": lambda folder, vectors: build_faiss(folder, vectors, True),
}
OPENERS: dict[str, Callable[[Path], Opened]] = {
    "clipedge-exact": lambda folder: open_clipedge(folder, True),
    "clipedge-lists": lambda folder: open_clipedge(folder, False),
    "faiss-flat": lambda folder: open_faiss(folder, False),
    "faiss-hnsw": lambda folder: open_faiss(folder, True),
}


def search(engine: str, folder: Path, limit: int) -> dict[str, Any]:
    """Open the files and answer ``limit`` queries of each kind, on one core: time, recall and memory."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    queries = {kind: np.load(folder / f"{kind}.npy")[:limit] for kind in KINDS}
    truth = {kind: np.load(folder / f"{kind}-truth.npy")[:limit] for kind in KINDS}
    for library in LIBRARIES[engine.partition("-")[0]]:
        import_module(library)
    start = time.perf_counter()
    opened = OPENERS[engine](folder)
    result: dict[str, Any] = {"open_s": time.perf_counter() - start}
    opened.search(queries["pictures"][:1])
    result["first_answer_s"] = time.perf_counter() - start
    for kind in KINDS:
        effort = {} if opened.set_effort is None else {"effort": tune(opened, queries[kind], truth[kind])}
        times, rows = [], []
        for query in queries[kind][:, None]:
            start = time.perf_counter()
            found = opened.search(query)
            times.append(1000 * (time.perf_counter() - start))
            rows.append(found.tolist())
        result[kind] = {"median_ms": statistics.median(times), "recall": recall(rows, truth[kind]), **effort}
    return {**result, **resident_mb()}


def tune(opened: Opened, queries: Vectors, truth: Rows) -> int:
    """The least of EFFORTS with a recall of RECALL, or the largest."""
    assert opened.set_effort is not None
    for effort in EFFORTS:
        opened.set_effort(effort)
        if recall([opened.search(query).tolist() for query in queries[:, None]], truth) >= RECALL:
            break
    return effort


def recall(found: list[list[int]], truth: Rows) -> float:
    """Of the true ten of each query, the share found."""
    shared = [len({*first} & {*second}) for first, second in zip(found, truth.tolist(), strict=True)]
    return sum(shared) / truth.size


def resident_mb() -> dict[str, float]:
    """This process's resident memory on Linux, and how much of it are pages of mapped files that it has touched."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = {name: int(value) for name, value in re.findall(r"^(VmRSS|RssFile):\s+(\d+) kB$", status, re.MULTILINE)}
    return {"resident_mb": kilobytes["VmRSS"] * 1024 / 1e6, "of_files_mb": kilobytes["RssFile"] * 1024 / 1e6}


def main() -> None:
    job, engine, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if job == "search":
        result = search(engine, folder, int(sys.argv[4]))
    else:
        start = time.perf_counter()
        BUILDERS[engine](folder, np.load(folder / "vectors.npy", mmap_mode="r"))
        result = {"build_s": time.perf_counter() - start}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
