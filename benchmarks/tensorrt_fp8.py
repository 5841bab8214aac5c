"""What FP8 for TensorRT costs in accuracy, beside half precision and INT8.

    python benchmarks/tensorrt_fp8.py --modelopt PYTHON [--scenes 2000]

The demonstration model and its largest outlier twin in FP8 by NVIDIA's Model Optimizer (``--precision fp8``), and the
former in fp16, made of the same float graphs and calibrated on 128 scenes. fp16 is computed in real half precision by
onnx's reference evaluator, FP8 by ONNX Runtime on the CPU, which rounds as the standard says and multiplies in
float32. That shows what the rounding costs, and nothing of TensorRT's own kernels or speed. Nothing of it went through
the export's gate. The rows of INT8 are those that tensorrt_int8.py recorded, if it did so on as many scenes, which are
then the same ones. Writes results/tensorrt_fp8.md and .json beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from int8_accuracy import DEMO, FACTORS, markdown, source_side, written_side
from layout import RESULTS
from machine import describe_machine
from pairs import SIZE, Pair, Row, Side, Target, document_of, drop_of, measure
from publish import publish
from tensorrt_int8 import MODELOPT, modelopt_pair

from clipedge import manifest
from clipedge.calibration.scenes import write_folder

if TYPE_CHECKING:
    from onnx import ModelProto

    from clipedge.export.convert import SourceTower

CALIBRATION_FOLDER = 192  # of which two thirds calibrate
FP8, HALF = f"FP8, {MODELOPT}", "fp16, ClipEdge"
TWIN = f"outlier twin x {FACTORS[-1]}"
MAX_DROP, MIN_MEDIAN, MIN_P1 = 1.0, 0.985, 0.95  # the export's own gate
TITLE = "# What FP8 for TensorRT costs in accuracy"


def half_pair(name: str, checkpoint: Path | None, source: Side, pictures: Path, folder: Path) -> Pair:
    """In half precision, as ``--precision fp16`` writes it, and computed in it."""
    import onnx

    from clipedge.calibration.half.convert import to_half
    from clipedge.calibration.half.evaluate import HalfEvaluator
    from clipedge.calibration.half.magnitudes import magnitudes
    from clipedge.calibration.half.pixels import scaled_pixels
    from clipedge.calibration.half.plan import operations_in_float32
    from clipedge.export.convert import save_variant

    def write(tower: SourceTower, graph: ModelProto) -> manifest.Variant:
        scaled = scaled_pixels(graph, tower.pixel_mean)
        kept = operations_in_float32(tower.name, scaled, magnitudes(scaled, tower.calibration))
        model = to_half(scaled, [item.operation for item in kept])
        return save_variant(tower, model, folder / f"{tower.name}.fp16.onnx", "fp16", "any")

    side = written_side(checkpoint, pictures, folder, write, lambda path: HalfEvaluator(onnx.load(path)))
    return Pair(name, HALF, source, side, 0, 0)


def recorded_int8(count: int) -> list[Row]:
    """What tensorrt_int8.py recorded of the same models on the same scenes."""
    document = json.loads((RESULTS / "tensorrt_int8.json").read_text(encoding="utf-8"))
    rows = [Row(**(row | {"drop_interval": tuple(row["drop_interval"])})) for row in document["rows"]]
    wanted = [row for row in rows if row.model in (DEMO, TWIN) and row.method in ("ClipEdge", MODELOPT)]
    return [replace(row, method=f"INT8, {row.method}") for row in wanted] if document["scenes"] == count else []


def make_pairs(scratch: Path, python: Path) -> list[Pair]:
    """What is measured here, in the table's order."""
    from clipedge.export.checkpoints import DEMO_CHECKPOINT
    from clipedge.export.demo.outliers import write_outlier_twin

    pictures = scratch / "calibration"
    write_folder(pictures, "calibration", CALIBRATION_FOLDER, width=SIZE, height=SIZE, by_label=True)
    demo = DEMO, None, source_side(None), pictures
    checkpoint = write_outlier_twin(DEMO_CHECKPOINT, scratch / "checkpoint", FACTORS[-1])
    return [
        half_pair(*demo, scratch / "half"),
        modelopt_pair(*demo, scratch / "fp8", python, "fp8", FP8),
        modelopt_pair(TWIN, checkpoint, source_side(checkpoint), pictures, scratch / "twin-fp8", python, "fp8", FP8),
    ]


def judge(rows: list[Row]) -> list[Target]:
    """FP8 against the gate that an export has to pass."""
    targets = []
    for row in rows:
        if row.method == FP8:
            cosines = f"{row.median_centred_cosine:.4f}, {row.p1_centred_cosine:.4f}"
            near = row.median_centred_cosine >= MIN_MEDIAN and row.p1_centred_cosine >= MIN_P1
            text = f"{row.model} in FP8: "
            targets += [
                Target(f"{text}drops at most {MAX_DROP:g} point", drop_of(row, " points"), row.drop_points <= MAX_DROP),
                Target(f"{text}centred cosines of at least {MIN_MEDIAN:g} and {MIN_P1:g}", cosines, near),
            ]
    return targets


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000, help="how many (default 2000)")
    parser.add_argument("--modelopt", type=Path, required=True, metavar="PYTHON", help="where Model Optimizer is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(make_pairs(Path(scratch), arguments.modelopt), arguments.scenes)
    rows = sorted([*rows, *recorded_int8(arguments.scenes)], key=lambda row: row.model)
    targets, machine = judge(rows), describe_machine()
    notes = [
        "",
        "Graphs for TensorRT, computed on the CPU, fp16 in real half precision by onnx's reference evaluator: TensorRT",
        "itself has not run. The rows of INT8 are those of tensorrt_int8.md, calibrated on 512 scenes; FP8 was on 128.",
    ]
    page = markdown(rows, targets, arguments.scenes, machine, TITLE, "exported") + "\n".join(notes) + "\n"
    publish("tensorrt_fp8", document_of(rows, targets, arguments.scenes, machine), page)


if __name__ == "__main__":
    main()
