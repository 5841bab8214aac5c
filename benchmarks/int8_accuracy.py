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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import describe_machine
from numpy.typing import NDArray
from publish import publish, target_lines
from tqdm import tqdm

import clipedge
from clipedge import manifest
from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, labelled_pictures, write_folder
from clipedge.export.verify import compare_answers
from clipedge.parallel import cores
from clipedge.selftest import centred_cosines

if TYPE_CHECKING:  # the processes that render scenes take neither torch nor onnx
    from onnx import ModelProto

    from clipedge.export.convert import SourceTower

FACTORS = (10, 50, 300)
SIZE = 64  # the demonstration model's: no preprocessing is in the figures
BATCH = 100
# For the twins and for min-max: as many calibrate as do for the demonstration model, and half as many prove.
CALIBRATION_FOLDER = 768
DEMO, MINMAX = "demonstration checkpoint", "plain min-max"
MAX_DROP_DEMO, MAX_DROP_TWIN, MIN_COSINE = 0.3, 1.0, 0.995
TITLE = "# What INT8 costs in accuracy"
COLLAPSE = 10.0  # points from which a drop is called one

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Side:
    """A model that answers: its image tower as a function of uint8 pixels, its text tower as (classes, D) labels."""

    encode: Any
    label_embeds: Floats


@dataclass(frozen=True, eq=False)
class Pair:
    """An INT8 model and its float32 source. ``in_float``: layers that the export left in float, of ``layers``."""

    name: str
    method: str
    source: Side
    exported: Side
    in_float: int
    layers: int


@dataclass(frozen=True)
class Row:
    """A pair on all scenes. Accuracies in percent, drops in points; the interval is the paired drop's, at 95 %."""

    model: str
    method: str
    source_accuracy: float
    int8_accuracy: float
    drop_points: float
    drop_interval: tuple[float, float]
    agreement: float
    median_centred_cosine: float
    p1_centred_cosine: float
    in_float: int
    layers: int


@dataclass(frozen=True)
class Target:
    """One line of the acceptance, and what was found."""

    text: str
    found: str
    met: bool


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
    checkpoint: Path | None, pictures: Path, folder: Path, write: Callable[[SourceTower, ModelProto], manifest.Variant]
) -> Side:
    """Both towers of a checkpoint as ``write`` puts their float graphs into ``folder``, on ONNX Runtime."""
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
        engines[tower.name] = open_engine(folder / variant.files[0].path, variant, "onnxruntime")
    return Side(engines["image"], label_embeds(partial(texts.encode_with, engines["text"])))


def label_embeds(encode_text: Any) -> Floats:
    """(classes, D), L2-normalised: the mean over the templates, as a prompt bank has it."""
    embeds = np.stack([encode_text([template.format(name) for name in CLASS_NAMES]) for template in TEMPLATES])
    mean = embeds.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)


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


def rendered_scenes(count: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Batches of ``BATCH`` scenes, (n, SIZE, SIZE, 3), and their classes; rendered on all cores."""
    with get_context("spawn").Pool(cores()) as pool:
        yield from pool.imap(_rendered_batch, [(start, min(BATCH, count - start)) for start in range(0, count, BATCH)])


def _rendered_batch(part: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    start, count = part
    return labelled_pictures("test", count, size=SIZE, start=start)


def measure(pairs: list[Pair], count: int) -> list[Row]:
    """Stream ``count`` scenes past all models; what stays in memory are embeddings."""
    sides = list(dict.fromkeys(side for pair in pairs for side in (pair.source, pair.exported)))
    embeds: dict[Side, list[Floats]] = {side: [] for side in sides}
    truth = []
    with tqdm(desc="scenes", total=count, unit="scene", disable=None) as bar:
        for pixels, labels in rendered_scenes(count):
            for side in sides:
                embeds[side].append(side.encode(pixels))
            truth.append(labels)
            bar.update(len(labels))
    whole = {side: np.concatenate(parts) for side, parts in embeds.items()}
    return [row_of(pair, whole[pair.source], whole[pair.exported], np.concatenate(truth)) for pair in pairs]


def row_of(pair: Pair, source: Floats, exported: Floats, truth: NDArray[np.int64]) -> Row:
    """Compare embeddings (N, D) of the same scenes, and the answers that they lead to."""
    answers = [
        (embeds @ side.label_embeds.T).argmax(axis=1)
        for embeds, side in ((source, pair.source), (exported, pair.exported))
    ]
    found = compare_answers(*answers, truth, CLASS_NAMES)
    assert found.source_accuracy is not None and found.exported_accuracy is not None
    assert found.drop_points is not None and found.drop_interval is not None
    cosines = centred_cosines(source, exported, source.mean(axis=0))
    return Row(
        model=pair.name,
        method=pair.method,
        source_accuracy=100 * found.source_accuracy,
        int8_accuracy=100 * found.exported_accuracy,
        drop_points=found.drop_points,
        drop_interval=found.drop_interval,
        agreement=100 * found.agreement,
        median_centred_cosine=float(np.median(cosines)),
        p1_centred_cosine=float(np.percentile(cosines, 1)),
        in_float=pair.in_float,
        layers=pair.layers,
    )


def judge(rows: list[Row]) -> list[Target]:
    """The acceptance of INT8's accuracy, line by line."""
    targets = []
    for row in rows:
        low, high = row.drop_interval
        drop = f"{row.drop_points:+.2f} points [{low:+.2f}, {high:+.2f}]"
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


def markdown(rows: list[Row], targets: list[Target], count: int, machine: dict[str, Any], title: str = TITLE) -> str:
    """The table, and what of the acceptance is met."""
    lines = [
        title,
        "",
        f"{count:,} rendered scenes, {SIZE} x {SIZE}, {len(CLASS_NAMES)} classes, zero-shot top-1: the float32",
        "checkpoint in torch against INT8 in both towers on ONNX Runtime. The drop is paired, with its 95 % interval.",
        f"{machine['cpu']}, VNNI: {'yes' if machine['vnni'] else 'no'}; {machine['date']}.",
        "",
        "| model | quantizer | fp32, % | INT8, % | drop, points | same answer, % | median centred cosine "
        "| 1st percentile | layers in float |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *map(_cells, rows),
        "",
        *target_lines(map(asdict, targets)),
    ]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> str:
    low, high = row.drop_interval
    return (
        f"| {row.model} | {row.method} | {row.source_accuracy:.2f} | {row.int8_accuracy:.2f} "
        f"| {row.drop_points:+.2f} [{low:+.2f}, {high:+.2f}] | {row.agreement:.2f} "
        f"| {row.median_centred_cosine:.4f} | {row.p1_centred_cosine:.4f} | {row.in_float} of {row.layers} |"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=10_000, help="how many (default 10000)")
    count = parser.parse_args().scenes
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(make_pairs(Path(scratch)), count)
    targets, machine = judge(rows), describe_machine()
    page = markdown(rows, targets, count, machine)
    document = {
        "machine": machine,
        "scenes": count,
        "rows": [asdict(row) for row in rows],
        "targets": [asdict(item) for item in targets],
    }
    publish("int8_accuracy", document, page)


if __name__ == "__main__":
    main()
