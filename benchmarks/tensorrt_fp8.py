"""What FP8 for TensorRT costs in accuracy, beside half precision and INT8.

    python benchmarks/tensorrt_fp8.py --modelopt PYTHON [--scenes 2000]

As tensorrt_int8.py, with the demonstration model and its largest outlier twin: FP8 by NVIDIA's Model Optimizer
(``--precision fp8``), INT8 by it and by our own quantizer, and fp16, which is computed in real half precision by onnx's
reference evaluator. The others are computed by ONNX Runtime on the CPU, which rounds to FP8 as the standard says and
multiplies in float32. That shows what the rounding costs, and nothing of TensorRT's own kernels or speed. What Model
Optimizer makes is measured whether or not it would pass the export's gate. Writes results/tensorrt_fp8.md and .json
beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from int8_accuracy import CALIBRATION_FOLDER, DEMO, FACTORS, exported_pair, markdown, source_side
from machine import describe_machine
from pairs import SIZE, Pair, Row, Side, Target, document_of, drop_of, label_embeds, measure
from publish import publish
from tensorrt_int8 import modelopt_pair

from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, write_folder

FP8, INT8, OURS, HALF = "FP8, Model Optimizer", "INT8, Model Optimizer", "INT8, ClipEdge", "fp16, ClipEdge"
MAX_DROP, MIN_MEDIAN, MIN_P1 = 1.0, 0.985, 0.95  # the export's own gate
TITLE = "# What FP8 for TensorRT costs in accuracy"


def half_pair(name: str, checkpoint: Path | None, source: Side, pictures: Path, output: Path) -> Pair:
    """What the public export makes of a checkpoint in fp16, computed in half precision."""
    import onnx

    import clipedge
    from clipedge.calibration.half.evaluate import HalfEvaluator
    from clipedge.export import export

    options = {"calibration_data": pictures, "labels": CLASS_NAMES, "templates": TEMPLATES}
    export(checkpoint, output, precision="fp16", target="tensorrt", **({} if checkpoint is None else options))
    image, text = (HalfEvaluator(onnx.load(output / f"{tower}.fp16.onnx")) for tower in ("image", "text"))
    tokenizer = clipedge.load(output, backend="onnxruntime", variant="fp16").tokenizer
    return Pair(name, HALF, source, Side(image, label_embeds(lambda texts: text(tokenizer(texts)))), 0, 0)


def make_pairs(scratch: Path, python: Path) -> list[Pair]:
    """The rows of the table, in order."""
    from clipedge.export.checkpoints import DEMO_CHECKPOINT
    from clipedge.export.demo.outliers import write_outlier_twin

    pictures = scratch / "calibration"
    write_folder(pictures, "calibration", CALIBRATION_FOLDER, width=SIZE, height=SIZE, by_label=True)
    twin = write_outlier_twin(DEMO_CHECKPOINT, scratch / "checkpoint", FACTORS[-1])
    pairs = []
    for place, (name, checkpoint) in enumerate(((DEMO, None), (f"outlier twin x {FACTORS[-1]}", twin))):
        model = name, checkpoint, source_side(checkpoint), pictures
        pairs += [
            half_pair(*model, scratch / f"half-{place}"),
            exported_pair(*model, scratch / f"own-{place}", "tensorrt", OURS),
            modelopt_pair(*model, scratch / f"int8-{place}", python, "int8", INT8),
            modelopt_pair(*model, scratch / f"fp8-{place}", python, "fp8", FP8),
        ]
    return pairs


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
    targets, machine = judge(rows), describe_machine()
    notes = [
        "",
        "Graphs for TensorRT, computed on the CPU, fp16 in real half precision by onnx's reference evaluator: TensorRT",
        "itself has not run. What Model Optimizer made went through no gate.",
    ]
    page = markdown(rows, targets, arguments.scenes, machine, TITLE, "exported") + "\n".join(notes) + "\n"
    publish("tensorrt_fp8", document_of(rows, targets, arguments.scenes, machine), page)


if __name__ == "__main__":
    main()
