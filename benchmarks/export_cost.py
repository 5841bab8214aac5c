"""What an INT8 export costs: wall time and peak memory of ViT-B/32 with 128 and with 64 and 512 calibration pictures.

    python benchmarks/export_cost.py [--counts 128 64 512]

Weights are seeded and random, pictures are rendered scenes with a camera's noise, saved as JPEG of 640 x 480; as an
export keeps every third picture for the proof, half as many prove as calibrate. Each export runs in a process of its
own on two cores. "Largest process" is the kernel's own figure (wait4's maximum resident set); "all processes" sums the
export and the processes in which it measures latency, sampled. Where the time and the memory go is sampled from the
exporting thread's stack. Writes results/export_cost.md and .json beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from layout import BUILD, model_folder
from machine import describe_machine
from PIL import Image
from prepare import make_checkpoint
from publish import publish, target_lines

from clipedge.calibration.scenes import labelled_scene, render
from clipedge.manifest import Precision
from clipedge.parallel import cores

SHAPE, PATCH_SIZE = "ViT-B/32", 32
CORES = 2
PICTURE_SIZE, NOISE, QUALITY = (640, 480), 6.0, 90
COUNTS = (128, 64, 512)
MAX_SECONDS, MAX_BYTES = 120, 4e9
GROWTH = 1.05  # "does not grow": what two runs of one export may differ by
PERIOD = 0.1  # seconds between samples: more often would slow down what is sampled
PAGE = os.sysconf("SC_PAGE_SIZE")

# The stages of an export by the functions that are on the exporting thread's stack, innermost first.
STAGES = {
    "latencies": "latency, in processes of its own",
    "layer_costs": "each layer's effect on the embedding",
    "observe_layers": "observe activations",
    "calibrate": "decide smoothing, ranges, bias",
    "write_variant": "quantize and write the graph",
    "_prove": "prove the INT8 graph",
    "embed_source": "run the source on the proof pictures",
    "float_graph": "build the float graph",
    "load_checkpoint": "read the checkpoint",
    "image_source": "build the source's tower",
    "export": "everything else",
}


class StageSampler:
    """Seconds and peak resident bytes by stage of the thread that made it, sampled until ``stop``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak: dict[str, int] = {}
        self.peak_of_all = 0
        self._watched = threading.get_ident()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.perf_counter()
        while not self._stopped.wait(PERIOD):
            now, stage = time.perf_counter(), self._stage()
            resident = _resident("self")
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - before
            self.peak[stage] = max(self.peak.get(stage, 0), resident)
            self.peak_of_all = max(self.peak_of_all, resident + sum(map(_resident, _children())))
            before = now

    def _stage(self) -> str:
        frame = sys._current_frames().get(self._watched)
        while frame is not None:
            if frame.f_code.co_name in STAGES:
                return STAGES[frame.f_code.co_name]
            frame = frame.f_back
        return "imports, clearing up"


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()


def _resident(process: str) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * PAGE
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0


def export_once(checkpoint: Path, pictures: Path, output: Path, precision: Precision) -> dict[str, Any]:
    """The measured process: one export, and the samples of it. A checkpoint without tokenizer has no text tower."""
    sampler = StageSampler()
    from clipedge.export import export

    text = (checkpoint / "tokenizer.json").exists()
    report = export(checkpoint, output, precision=precision, target="x86", calibration_data=pictures, text=text)
    sampler.stop()
    parity = report.towers["image"].parity
    return {
        "calibration": report.calibration,
        "seconds_by_stage": sampler.seconds,
        "peak_bytes_by_stage": sampler.peak,
        "all_processes_bytes": sampler.peak_of_all,
        "layers_in_float": sum(layer.in_float for layer in report.layers),
        "median_centred_cosine": parity.median_centred_cosine,
        "p1_centred_cosine": parity.p1_centred_cosine,
    }


def measured_export(checkpoint: Path, pictures: Path, scratch: Path, precision: Precision = "int8") -> dict[str, Any]:
    """Run ``export_once`` in a process of its own; adds its wall time and the kernel's peak of its memory.

    The bundle is left in ``scratch``.
    """
    result = scratch / "result.json"
    paths = map(str, (checkpoint, pictures, scratch / "bundle", result))
    command = [sys.executable, __file__, "--precision", precision, "--export", *paths]
    begin = time.perf_counter()
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - begin
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"the export ends with {code}")
    found = json.loads(result.read_text(encoding="utf-8"))
    return {"seconds": seconds, "largest_process_bytes": 1024 * usage.ru_maxrss, **found}


def make_pictures(folder: Path, count: int) -> None:
    """``count`` JPEGs, drawn on all cores."""
    folder.mkdir()
    with get_context("spawn").Pool(cores()) as pool:
        pool.map(_make_picture, [(index, folder / f"{index:04}.jpg") for index in range(count)], chunksize=16)


def _make_picture(job: tuple[int, Path]) -> None:
    index, path = job
    clean = render(labelled_scene("calibration", index)[0], *PICTURE_SIZE).picture
    noisy = clean + np.random.default_rng(index).normal(0, NOISE, clean.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)


def measure(counts: Sequence[int]) -> dict[int, dict[str, Any]]:
    """An export for each number of calibration pictures."""
    checkpoint = model_folder(SHAPE) / "checkpoint"
    if not (checkpoint / "labels.npy").exists():
        make_checkpoint(checkpoint, PATCH_SIZE)
    found = {}
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        every = Path(scratch) / "pictures"
        print("drawing pictures", file=sys.stderr, flush=True)
        make_pictures(every, max(counts) * 3 // 2)
        files = sorted(every.iterdir())
        for count in counts:
            folder = Path(scratch) / str(count)
            folder.mkdir()
            # Every third of the files proves, as an export divides them.
            for path in files[: count * 3 // 2]:
                os.link(path, folder / path.name)
            print(f"exporting with {count} calibration pictures", file=sys.stderr, flush=True)
            found[count] = measured_export(checkpoint, folder, Path(scratch))
    return found


def judge(found: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The acceptance: time and memory of the first export, memory of the others beside each other."""
    first, *others = found
    seconds, peak = found[first]["seconds"], found[first]["all_processes_bytes"]
    targets = [
        {
            "text": f"{first} pictures: at most {MAX_SECONDS} s",
            "found": f"{seconds:.0f} s",
            "met": seconds <= MAX_SECONDS,
        },
        {
            "text": f"{first} pictures: at most {MAX_BYTES / 1e9:g} GB, all processes",
            "found": f"{peak / 1e9:.2f} GB",
            "met": peak <= MAX_BYTES,
        },
    ]
    if others:
        few, many = min(others), max(others)
        sizes = [found[count]["largest_process_bytes"] for count in (few, many)]
        targets.append(
            {
                "text": f"memory does not grow from {few} to {many} pictures (by {GROWTH - 1:.0%} at most)",
                "found": f"{sizes[0] / 1e9:.2f} GB, {sizes[1] / 1e9:.2f} GB",
                "met": sizes[1] <= GROWTH * sizes[0],
            }
        )
    return targets


def markdown(
    found: Mapping[int, Mapping[str, Any]], targets: Sequence[Mapping[str, Any]], machine: dict[str, Any]
) -> str:
    """The tables, and what of the acceptance is met."""
    first = next(iter(found))
    run = found[first]
    stages = sorted(run["seconds_by_stage"], key=lambda stage: -run["seconds_by_stage"][stage])
    lines = [
        "# What an INT8 export costs",
        "",
        f"{SHAPE}, image tower, {CORES} cores of {machine['cpu']}; {machine['date']}.",
        "",
        "| calibration pictures | seconds | largest process, GB | all processes, GB | median centred cosine "
        "| layers in float |",
        "|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {count} | {item['seconds']:.1f} | {item['largest_process_bytes'] / 1e9:.2f} "
            f"| {item['all_processes_bytes'] / 1e9:.2f} | {item['median_centred_cosine']:.4f} "
            f"| {item['layers_in_float']} |"
            for count, item in sorted(found.items())
        ),
        "",
        f"With {first} pictures, by stage:",
        "",
        "| stage | seconds | largest process meanwhile, GB |",
        "|---|---:|---:|",
        *(
            f"| {stage} | {run['seconds_by_stage'][stage]:.1f} | {run['peak_bytes_by_stage'][stage] / 1e9:.2f} |"
            for stage in stages
        ),
        "",
        *target_lines(targets),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="calibration pictures, even numbers")
    parser.add_argument("--export", type=Path, nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="int8", help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    if args.export:
        *inputs, result = args.export
        result.write_text(json.dumps(export_once(*inputs, args.precision)), encoding="utf-8")
        return
    found = measure(args.counts)
    targets, machine = judge(found), describe_machine()
    page = markdown(found, targets, machine)
    document = {"machine": machine, "exports": {str(count): item for count, item in found.items()}, "targets": targets}
    publish("export_cost", document, page)


if __name__ == "__main__":
    main()
