"""Retrieval from many vectors beside faiss: recall, latency, memory and opening time, exactly and approximately.

    python benchmarks/retrieval.py --peers .venv-peers/bin/python [--vectors 10000 100000 1000000] [--work DIR]

How the vectors are made stands in retrieval_data.py, how they are searched in retrieval_worker.py. Every engine has a
process of its own, one core and one thread (for building: all cores), in turns over several rounds; a figure is the
median over the rounds. Files are in the page cache. Opening begins with imported libraries and ends with the first
answer. Memory is the process's resident set after all queries, its pages of mapped files and the interpreter included.
What was built is kept in --work and used again: a million vectors take 8 GB there, and half an hour the first time.
Writes results/retrieval.md and .json, and prints the former.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layout import BUILD, REPOSITORY
from machine import describe_machine
from publish import publish, target_lines
from retrieval_data import KINDS, make_data, mean_cosine

ENGINES = {
    "clipedge-exact": "ClipEdge, exact",
    "faiss-flat": "faiss IndexFlatIP",
    "clipedge-lists": "ClipEdge, lists",
    "faiss-hnsw": "faiss IndexHNSWFlat",
}
EXACT = ("clipedge-exact", "faiss-flat")
WORKER = REPOSITORY / "benchmarks" / "retrieval_worker.py"
QUERIES, ROUNDS = 500, 3
EXACT_WORK = 3_000_000  # vectors compared in one run of exact search: fewer queries where there are more of them
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run(python: Path, environment: Mapping[str, str], *arguments: object) -> dict[str, Any]:
    """One job of the worker in a process of its own."""
    command = [os.fspath(python), os.fspath(WORKER), *map(str, arguments)]
    print(" ".join(map(str, arguments)), file=sys.stderr, flush=True)
    outcome = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ, **environment})
    found: dict[str, Any] = json.loads(outcome.stdout)
    return found


def prepare(folder: Path, count: int, pythons: Mapping[str, Path]) -> dict[str, float]:
    """Vectors, truth and every engine's files, unless they are there; the seconds that each engine's took."""
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"drawing {count} vectors", file=sys.stderr, flush=True)
        make_data(folder, count, QUERIES)
        (folder / "made").touch()
    path = folder / "built.json"
    built: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for engine, python in pythons.items():
        if engine not in built:
            built[engine] = run(python, {}, "build", engine, folder)["build_s"]
            path.write_text(json.dumps(built), encoding="utf-8")
    return built


def measure(folder: Path, count: int, pythons: Mapping[str, Path], rounds: int) -> dict[str, Any]:
    built = prepare(folder, count, pythons)
    found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in pythons}
    for _ in range(rounds):
        for engine, python in pythons.items():
            queries = min(EXACT_WORK // count, QUERIES) if engine in EXACT else QUERIES
            found[engine].append(run(python, ONE_THREAD, "search", engine, folder, queries))
    engines = {engine: {"build_s": built[engine], **medians(results)} for engine, results in found.items()}
    return {"vectors": count, "mean_cosine": mean_cosine(folder), "engines": engines}


def medians(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure over the rounds."""
    return {
        name: medians([result[name] for result in results])
        if isinstance(value, dict)
        else statistics.median(result[name] for result in results)
        for name, value in results[0].items()
    }


def judge(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The acceptance, for what was run of it."""
    by_count = {result["vectors"]: result["engines"] for result in results}
    targets: list[tuple[str, float, str, bool]] = []
    if 10_000 in by_count:
        for kind in KINDS:
            found = by_count[10_000]["clipedge-exact"][kind]["median_ms"]
            targets.append((f"exact search of 10,000 in under 2 ms, {kind}", found, ".2f", found < 2))
    if 1_000_000 in by_count:
        lists = by_count[1_000_000]["clipedge-lists"]
        for kind in KINDS:
            found = lists[kind]["recall"]
            targets.append((f"1,000,000: recall@10 of 0.98, {kind}", found, ".4f", found >= 0.98))
            found = lists[kind]["median_ms"]
            targets.append((f"1,000,000: at most 1 ms, {kind}", found, ".2f", found <= 1))
        found = lists["resident_mb"]
        targets.append(("1,000,000: at most 700 MB resident", found, ".0f", found <= 700))
        found = lists["first_answer_s"]
        targets.append(("1,000,000: opened, with the first answer, in under 0.3 s", found, ".2f", found < 0.3))
    return [{"text": text, "found": format(found, form), "met": met} for text, found, form, met in targets]


def markdown(document: Mapping[str, Any]) -> str:
    machine, results = document["machine"], document["results"]
    lines = [
        "# Retrieval",
        "",
        f"{machine['cpu']}, one core, one thread, {machine['date']}; medians of {document['rounds']} rounds.",
        "Made by `make bench-retrieval`. benchmarks/retrieval_data.py says how the vectors are drawn (512 numbers,",
        f"mean cosine {results[-1]['mean_cosine']:.2f}): not computed from pictures, but clustered at several scales,",
        "as the embeddings of a collection of photographs are. Pictures and texts are kinds of queries. Recall is",
        "against exact float32 search. Opened: until the first answer, libraries imported, files in the page cache.",
        "Memory: the process's resident set after all queries, with interpreter, libraries and the pages of files that",
        f"were touched (in brackets: files' pages alone). Over the last 15 minutes {document['load']:.1f} processes",
        f"shared the machine's {machine['cores']} cores, this one included; where that is more, times are too long.",
        "",
        "| vectors | engine | recall@10 pictures | texts | ms pictures | texts | opened, s | memory, MB | built, s |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        for engine, found in result["engines"].items():
            pictures, texts = found["pictures"], found["texts"]
            efforts = [format(kind["effort"], ".0f") for kind in (pictures, texts) if "effort" in kind]
            name = ENGINES[engine] + (f", efSearch {' and '.join(efforts)}" if efforts else "")
            cells = [f"{result['vectors']:,}", name]
            cells += [format(kind["recall"], ".4f") for kind in (pictures, texts)]
            cells += [format(kind["median_ms"], ".2f") for kind in (pictures, texts)]
            cells += [f"{found['first_answer_s']:.2f}", f"{found['resident_mb']:.0f} ({found['of_files_mb']:.0f})"]
            lines.append(f"| {' | '.join(cells)} | {found['build_s']:.0f} |")
    lines += [
        "",
        *ratios(results[-1]),
        "",
        "The lists' seconds of building come on top of those of the exact index. faiss's HNSW is built with its",
        "defaults and 32 neighbours a vector; efSearch is, for pictures and for texts, the least power of two up to",
        "1024 with a recall of 0.98. It holds float32 vectors in memory, ClipEdge short codes in a mapped file.",
    ]
    return "\n".join([*lines, "", *target_lines(document["targets"]), ""])


def ratios(result: Mapping[str, Any]) -> list[str]:
    """How long ClipEdge's lists take beside each of faiss's indexes, in the same run."""
    ours = result["engines"]["clipedge-lists"]
    lines = []
    for engine in ("faiss-hnsw", "faiss-flat"):
        theirs = result["engines"][engine]
        pictures, texts = (ours[kind]["median_ms"] / theirs[kind]["median_ms"] for kind in KINDS)
        lines.append(f"- {pictures:.3g} (pictures) and {texts:.3g} (texts) times those of {ENGINES[engine]}")
    return [f"Of {result['vectors']:,} vectors, the times of ClipEdge's lists are", "", *lines]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="the Python that has faiss")
    parser.add_argument("--vectors", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--work", type=Path, default=BUILD / "retrieval", help="where vectors and indexes are kept")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    pythons = {engine: arguments.peers if engine.startswith("faiss") else Path(sys.executable) for engine in ENGINES}
    results = [measure(arguments.work / str(count), count, pythons, arguments.rounds) for count in arguments.vectors]
    document = {
        "machine": describe_machine(),
        "rounds": arguments.rounds,
        "load": os.getloadavg()[2],
        "results": results,
        "targets": judge(results),
    }
    page = markdown(document)
    publish("retrieval", document, page)


if __name__ == "__main__":
    main()
