"""What INT8 for TensorRT costs in accuracy, by our own quantizer and by NVIDIA's Model Optimizer.

    python benchmarks/tensorrt_int8.py --modelopt PYTHON [--scenes 10000]

As int8_accuracy.py measures INT8 for processors, with the same models, scenes and limits: symmetric int8 graphs for
TensorRT (``--target tensorrt``), computed by ONNX Runtime on the CPU. That shows what the rounding costs, and nothing
of TensorRT's own kernels or speed. "INT8 attention" is ``--int8-attention``. Model Optimizer quantizes the same float
graphs, calibrated on the same inputs, with its defaults (which have attention in INT8); PYTHON is that of an
environment where it is installed. What it makes is measured whether or not it would pass the export's gate. Writes
results/tensorrt_int8.md and .json beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from int8_accuracy import (
    CALIBRATION_FOLDER,
    DEMO,
    FACTORS,
    MINMAX,
    exported_pair,
    judge,
    markdown,
    minmax_pair,
    source_side,
    written_side,
)
from machine import describe_machine
from pairs import SIZE, Pair, Side, document_of, measure
from publish import publish

from clipedge import manifest
from clipedge.calibration.scenes import write_folder

if TYPE_CHECKING:
    from onnx import ModelProto

    from clipedge.export.convert import SourceTower

# Lets the environment of the libraries of origin find ClipEdge.
ORIGIN = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "tests" / "origin" / "site")}
ATTENTION, MODELOPT = "ClipEdge, INT8 attention", "Model Optimizer"
TITLE = "# What INT8 for TensorRT costs in accuracy"


def modelopt_pair(
    name: str,
    checkpoint: Path | None,
    source: Side,
    pictures: Path,
    folder: Path,
    python: Path,
    precision: manifest.Precision = "int8",
    method: str = MODELOPT,
) -> Pair:
    """What Model Optimizer makes of the same float graphs."""
    import onnx

    from clipedge.calibration.storage import save_model
    from clipedge.export.convert import save_variant

    def write(tower: SourceTower, graph: ModelProto) -> manifest.Variant:
        files = [folder / f"{tower.name}.{part}" for part in ("float.onnx", "inputs.npy", "modelopt.onnx")]
        save_model(graph, files[0])
        np.save(files[1], np.concatenate(list(tower.calibration)))
        worker = Path(__file__).with_name("modelopt_worker.py")
        subprocess.run([str(python), str(worker), *map(str, files), precision], check=True, env=ORIGIN)
        return save_variant(tower, onnx.load(files[2]), folder / f"{tower.name}.onnx", precision, "tensorrt")

    exported = written_side(checkpoint, pictures, folder, write)
    return Pair(name, method, source, exported, 0, 0)


def make_pairs(scratch: Path, python: Path) -> list[Pair]:
    """The rows of the table, in order."""
    from clipedge.export.checkpoints import DEMO_CHECKPOINT
    from clipedge.export.demo.outliers import write_outlier_twin

    pictures = scratch / "calibration"
    write_folder(pictures, "calibration", CALIBRATION_FOLDER, width=SIZE, height=SIZE, by_label=True)
    models: list[tuple[str, Path | None, Side]] = [(DEMO, None, source_side(None))]
    for factor in FACTORS:
        twin = write_outlier_twin(DEMO_CHECKPOINT, scratch / f"checkpoint-{factor}", factor)
        models.append((f"outlier twin x {factor}", twin, source_side(twin)))
    pairs = [
        exported_pair(*model, pictures, scratch / f"own-{place}", "tensorrt") for place, model in enumerate(models)
    ]
    for place, model in enumerate((models[0], models[-1])):
        options = {"method": ATTENTION, "int8_attention": True}
        pairs.append(exported_pair(*model, pictures, scratch / f"attention-{place}", "tensorrt", **options))
        pairs.append(minmax_pair(*model, pictures, scratch / f"minmax-{place}", "tensorrt"))
        pairs.append(modelopt_pair(*model, pictures, scratch / f"modelopt-{place}", python))
    return pairs


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=10_000, help="how many (default 10000)")
    parser.add_argument("--modelopt", type=Path, required=True, metavar="PYTHON", help="where Model Optimizer is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(make_pairs(Path(scratch), arguments.modelopt), arguments.scenes)
    targets = judge([row for row in rows if row.method in ("ClipEdge", MINMAX)])
    machine = describe_machine()
    notes = [
        "",
        "Graphs for TensorRT, computed by ONNX Runtime on the CPU: TensorRT itself has not run. What Model Optimizer",
        "made went through no gate.",
    ]
    page = markdown(rows, targets, arguments.scenes, machine, TITLE) + "\n".join(notes) + "\n"
    publish("tensorrt_int8", document_of(rows, targets, arguments.scenes, machine), page)


if __name__ == "__main__":
    main()
