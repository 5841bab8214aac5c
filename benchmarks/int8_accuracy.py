"""What INT8 costs in accuracy: the demonstration checkpoint and its outlier twins, zero-shot on rendered scenes.

    python benchmarks/int8_accuracy.py [--scenes 10000]

Every model is measured against its own source, the float32 checkpoint in torch: picture by picture on scenes of the
split "test", 64 x 64 pixels, 120 classes, both towers in INT8 on ONNX Runtime. A twin (clipedge.export.demo.outliers)
computes the same function with channels and a neuron that are 10, 50 or 300 times larger, so what it loses, the
quantizer lost. "Plain min-max" is the same graph with the same Q/DQ pairs, and the whole range that calibration saw as
every layer's range: no smoothing, no search, no bias correction. Scenes are rendered once and streamed past all
models. Writes results/int8_accuracy.md and .json beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import describe_machine
from pairs import SIZE, Pair, Row, Side, Target, cells, document_of, drop_of, label_embeds, measure
from publish import publish, target_lines

import clipedge
from clipedge import manifest
from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, write_folder

if TYPE_CHECKING:  # the processes that render scenes take neither torch nor onnx
    from onnx import ModelProto

    from clipedge.export.convert import SourceTower
    from clipedge.export.proof import Encoder

FACTORS = (10, 50, 300)
# For the twins and for min-max: as many calibrate as do for the demonstration model, and half as many prove.
CALIBRATION_FOLDER = 768
DEMO, MINMAX = "demonstration checkpoint", "plain min-max"
MAX_DROP_DEMO, MAX_DROP_TWIN, MIN_COSINE = 0.3, 1.0, 0.995
TITLE = "# What INT8 costs in accuracy"
COLLAPSE = 10.0  # points from which a drop is called one


def source_side(checkpoint: Path | None) -> Side:
    """The checkpoint itself, float32 in torch."""
    from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
    from clipedge.export.proof import source_encoder
    from clipedge.export.source_texts import SourceTexts
    from clipedge.export.towers import build_image_tower

    loaded = load_checkpoint(checkpoint or DEMO_CHECKPOINT)
    return Side(source_encoder(build_image_tower(loaded)), label_embeds(SourceTexts(loaded).encode))


def exported_pair(
    name: str,
    checkpoint: Path | None,
    source: Side,
    pictures: Path,
    output: Path,
    target: manifest.Target = "x86",
    method: str = "ClipEdge",
    **options: Any,
) -> Pair:
    """What the public export makes of a checkpoint, loaded as a device loads it; None is the demonstration one."""
    from clipedge.export import export

    if checkpoint is not None:
        options |= {"calibration_data": pictures, "labels": CLASS_NAMES, "templates": TEMPLATES}
    report = export(checkpoint, output, precision="int8", target=target, **options)
    clip = clipedge.load(output, backend="onnxruntime", variant=f"int8.{target}")
    exported = Side(clip.image_engine, clip.prompt_bank(CLASS_NAMES, TEMPLATES).label_embeds)
    in_float = sum(layer.in_float for layer in report.layers)
    return Pair(name, method, source, exported, in_float, len(report.layers))


def minmax_pair(
    name: str, checkpoint: Path | None, source: Side, pictures: Path, folder: Path, target: manifest.Target = "x86"
) -> Pair:
    """The same graphs with the ranges of a plain quantizer."""
    from clipedge.calibration.calibrate import minmax_calibration, observe_layers
    from clipedge.export.convert import write_variant

    layers = 0

    def write(tower: SourceTower, graph: ModelProto) -> manifest.Variant:
        nonlocal layers
        calibration = minmax_calibration(graph, observe_layers(graph, tower.calibration, tower.weigh))
        layers += len(calibration.layers)
        return write_variant(tower, graph, folder, "int8", target, calibration)

    exported = written_side(checkpoint, pictures, folder, write)
    return Pair(name, MINMAX, source, exported, 0, layers)


def written_side(
    checkpoint: Path | None,
    pictures: Path,
    folder: Path,
    write: Callable[[SourceTower, ModelProto], manifest.Variant],
    opener: Callable[[Path], Encoder] | None = None,
) -> Side:
    """Both towers of a checkpoint as ``write`` puts their float graphs into ``folder``; ``opener``: what computes them,
    in place of ONNX Runtime."""
    from clipedge.backends import open_engine
    from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
    from clipedge.export.convert import float_graph
    from clipedge.export.material import gather_material
    from clipedge.export.source_texts import SourceTexts
    from clipedge.export.sources import image_source, text_source
    from clipedge.export.streams import PixelStream

    folder.mkdir()
    loaded = load_checkpoint(checkpoint or DEMO_CHECKPOINT)
    material = gather_material(loaded, "int8", pictures, CLASS_NAMES, TEMPLATES)
    streams = [PixelStream(some, loaded.preprocessing, "min-max") for some in (material.calibration, material.proof)]
    texts = SourceTexts(loaded)
    engines = {}
    for tower in (image_source(loaded, *streams), text_source(texts, material)):
        variant = write(tower, float_graph(tower, folder))
        path = folder / variant.files[0].path
        engines[tower.name] = opener(path) if opener else open_engine(path, variant, "onnxruntime")
    return Side(engines["image"], label_embeds(partial(texts.encode_with, engines["text"])))


def make_pairs(scratch: Path) -> list[Pair]:
    """The rows of the table, in order."""
    from clipedge.export.checkpoints import DEMO_CHECKPOINT
    from clipedge.export.demo.outliers import write_outlier_twin

    pictures = scratch / "calibration"
    write_folder(pictures, "calibration", CALIBRATION_FOLDER, width=SIZE, height=SIZE, by_label=True)
    demo = source_side(None)
    pairs = [exported_pair(DEMO, None, demo, pictures, scratch / "demo")]
    for factor in FACTORS:
        twin = write_outlier_twin(DEMO_CHECKPOINT, scratch / f"checkpoint-{factor}", factor)
        source = source_side(twin)
        pairs.append(exported_pair(f"outlier twin x {factor}", twin, source, pictures, scratch / f"twin-{factor}"))
    pairs.append(minmax_pair(DEMO, None, demo, pictures, scratch / "minmax-demo"))
    pairs.append(minmax_pair(f"outlier twin x {factor}", twin, source, pictures, scratch / "minmax-twin"))
    return pairs


def judge(rows: list[Row]) -> list[Target]:
    """The acceptance of INT8's accuracy, line by line."""
    targets = []
    for row in rows:
        drop = drop_of(row, " points")
        if row.method == MINMAX:
            if row.model != DEMO:
                text = f"{row.model}, {MINMAX}: collapses (drops {COLLAPSE:g} points or more)"
                targets.append(Target(text, drop, row.drop_points >= COLLAPSE))
            continue
        within = abs(row.drop_points) <= MAX_DROP_DEMO if row.model == DEMO else row.drop_points <= MAX_DROP_TWIN
        limit = f"within {MAX_DROP_DEMO:g}" if row.model == DEMO else f"drops at most {MAX_DROP_TWIN:g}"
        targets.append(Target(f"{row.model}: accuracy {limit} points", drop, within))
        cosine = row.median_centred_cosine
        text = f"{row.model}: median centred cosine at least {MIN_COSINE:g}"
        targets.append(Target(text, f"{cosine:.4f}", cosine >= MIN_COSINE))
    return targets


def markdown(
    rows: list[Row],
    targets: list[Target],
    count: int,
    machine: dict[str, Any],
    title: str = TITLE,
    exported: str = "INT8",
) -> str:
    """The table, and what of the acceptance is met. ``exported``: what the models are held against."""
    lines = [
        title,
        "",
        f"{count:,} rendered scenes, {SIZE} x {SIZE}, {len(CLASS_NAMES)} classes, zero-shot top-1: the float32",
        f"checkpoint in torch against {exported} in both towers on ONNX Runtime. The drop is paired, with its 95 % "
        "interval.",
        f"{machine['cpu']}, VNNI: {'yes' if machine['vnni'] else 'no'}; {machine['date']}.",
        "",
        f"| model | quantizer | fp32, % | {exported}, % | drop, points | same answer, % | median centred cosine "
        "| 1st percentile | layers in float |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *(f"| {row.model} | {row.method} {cells(row)}" for row in rows),
        "",
        *target_lines(map(asdict, targets)),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=10_000, help="how many (default 10000)")
    count = parser.parse_args().scenes
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(make_pairs(Path(scratch)), count)
    targets, machine = judge(rows), describe_machine()
    page = markdown(rows, targets, count, machine)
    publish("int8_accuracy", document_of(rows, targets, count, machine), page)


if __name__ == "__main__":
    main()
