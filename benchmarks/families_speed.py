"""Image towers of several families beside each other, fp32 and INT8, in ONNX Runtime and OpenVINO, in one run.

    python benchmarks/families_speed.py --origin .venv-origin/bin/python [--models ViT-B-32 MobileCLIP2-S0]

Each model is made by open_clip itself, with seeded random weights, and exported by ClipEdge; speed does not depend on
the weights' values. Each bundle and engine is timed in a process of its own (``clipedge.bench``, one picture), in
turns, over several rounds; the figures are medians over the rounds. Writes results/families_speed.md and .json, and
prints the former.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layout import BUILD, PICTURES, REPOSITORY
from machine import describe_machine
from prepare import exporter_digest, make_pictures
from publish import publish

FAMILIES = BUILD / "families-speed"
WORKER = REPOSITORY / "tests" / "origin" / "worker.py"
# open_clip's names, with what a model's own configuration does not say of its preprocessing.
MOBILE = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "interpolation": "bilinear"}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "ViT-B-32": {},
    "MobileCLIP2-S0": MOBILE,
}
PRECISIONS = ("fp32", "int8")
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
ROUNDS = 5
Timings = dict[str, dict[str, list[float]]]  # model -> "PRECISION ENGINE" -> milliseconds, one a round


def make_model(name: str, origin: Path) -> Path:
    """The model as an OpenCLIP folder, written by open_clip in its own environment."""
    folder = FAMILIES / name / "checkpoint"
    if (folder / "origin.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sorted((PICTURES / "calibration").glob("*.png"))[0], folder / "0.png")
    job = {"model": name, "preprocess": MODELS[name], "texts": ["a photo"]}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    subprocess.run([origin, WORKER, folder], check=True)
    return folder


def make_bundles(name: str, checkpoint: Path) -> dict[str, Any]:
    """Bundles in both precisions beside the checkpoint; what the report says of the INT8 one."""
    from clipedge.export import export

    made_by = FAMILIES / name / "made-by"
    if not made_by.exists() or made_by.read_text() != exporter_digest():
        for precision in PRECISIONS:
            print(f"exporting {name} to {precision}", file=sys.stderr, flush=True)
            pictures = PICTURES / "calibration"
            export(checkpoint, FAMILIES / name / precision, precision=precision, calibration_data=pictures, text=False)
        made_by.write_text(exporter_digest())
    report: dict[str, Any] = json.loads((FAMILIES / name / "int8" / "report.json").read_text(encoding="utf-8"))
    return report


def measure(names: Sequence[str], rounds: int) -> Timings:
    """Every bundle in every engine, round by round."""
    found: Timings = {name: {} for name in names}
    for round_ in range(rounds):
        print(f"round {round_ + 1}/{rounds}", file=sys.stderr, flush=True)
        for engine in ENGINES:
            for precision in PRECISIONS:
                for name in names:
                    bundle = FAMILIES / name / precision
                    variant = "fp32" if precision == "fp32" else "int8.x86"
                    command = [sys.executable, "-m", "clipedge.bench", str(bundle), variant, engine]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    latency = json.loads(done.stdout)["image"]["median_ms"]
                    found[name].setdefault(f"{precision} {engine}", []).append(latency)
    return found


def markdown(timings: Timings, reports: Mapping[str, Mapping[str, Any]], machine: Mapping[str, Any]) -> str:
    """The table: milliseconds by engine and precision, size, and how near INT8 stays."""
    columns = [f"{precision} {engine}" for engine in ENGINES for precision in PRECISIONS]
    titles = [f"{ENGINES[engine]} {precision.upper()}" for engine in ENGINES for precision in PRECISIONS]
    lines = [
        "# Families side by side",
        "",
        f"Image towers with random weights, one picture, milliseconds (medians of {_rounds(timings)} rounds); "
        f"{machine['cpu']}, {machine['date']}.",
        "",
        f"| model | {' | '.join(titles)} | fp32, MB | INT8, MB | INT8's median centred cosine | layers in float |",
        "|---|" + "---:|" * (len(columns) + 4),
    ]
    for name, times in timings.items():
        image = reports[name]["towers"]["image"]
        in_float = sum(layer["in_float"] for layer in reports[name]["layers"])
        cells = [f"{statistics.median(times[column]):.1f}" for column in columns]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {image['source_bytes'] / 1e6:.0f} | {image['exported_bytes'] / 1e6:.0f} "
            f"| {image['parity']['median_centred_cosine']:.4f} | {in_float} |"
        )
    return "\n".join(lines) + "\n"


def _rounds(timings: Timings) -> int:
    return len(next(iter(next(iter(timings.values())).values())))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--origin", type=Path, required=True, help="the Python that has open_clip")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    make_pictures()
    reports = {name: make_bundles(name, make_model(name, args.origin.absolute())) for name in args.models}
    timings, machine = measure(args.models, args.rounds), describe_machine()
    page = markdown(timings, reports, machine)
    document = {"machine": machine, "milliseconds": timings}
    publish("families_speed", document, page)


if __name__ == "__main__":
    main()
