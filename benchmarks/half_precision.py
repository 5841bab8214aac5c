"""What half precision does to embeddings, computed as it is: the demonstration model and twins with outlier channels.

    python benchmarks/half_precision.py [--scenes 100]

Three forms of each tower are held against the float32 checkpoint in torch: the graph with every operation that may be
in half precision in it (naive), the graph as `clipedge export --precision fp16` writes it, whose range was checked on
128 calibration scenes, and the latter on ONNX Runtime, which on x86 computes in float32. The first two are computed in
real half precision by onnx's reference evaluator (calibration/half/evaluate.py). Pictures are rendered scenes of the
split "test", texts the classes in the scenes' templates, and captions; calibration saw none of them. Nothing ran on a
GPU. Writes results/half_precision.md and .json beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from numpy.typing import NDArray
from publish import publish, target_lines
from tqdm import tqdm

from clipedge.calibration import scenes
from clipedge.calibration.data import SCENES, scene_pictures
from clipedge.calibration.half.convert import to_half
from clipedge.calibration.half.evaluate import HalfEvaluator
from clipedge.calibration.half.magnitudes import magnitudes
from clipedge.calibration.half.pixels import scaled_pixels
from clipedge.calibration.half.plan import operations_in_float32
from clipedge.calibration.storage import cpu_session
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.convert import SourceTower, float_graph
from clipedge.export.demo.outliers import write_outlier_twin
from clipedge.export.material import gather_material
from clipedge.export.proof import Encoder, source_encoder
from clipedge.export.source_texts import SourceTexts
from clipedge.export.sources import image_source, text_source
from clipedge.export.streams import PixelStream
from clipedge.selftest import centred_cosines

FACTORS = (300, 100_000)
CALIBRATION = 128
SIZE = 64  # the demonstration model's
BATCH = 25
NEEDED = 0.999

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Form:
    """Centred cosines with the source over all inputs, and the share of embeddings that are numbers, in percent."""

    median: float | None
    p1: float | None
    finite: float


@dataclass(frozen=True)
class Row:
    """A tower in three forms. ``largest``: a tensor's largest magnitude; ``kept``: operations in float32 for it."""

    model: str
    tower: str
    largest: float
    kept: int
    operations: int
    float_mb: float
    half_mb: float
    naive: Form
    half: Form
    engine: Form


def towers(checkpoint: Path, count: int) -> Iterator[tuple[SourceTower, NDArray[Any]]]:
    """Both, and inputs that calibration has not seen."""
    loaded = load_checkpoint(checkpoint)
    material = gather_material(loaded, "fp16", SCENES, scenes.CLASS_NAMES, scenes.TEMPLATES)
    calibration, proof = (
        PixelStream(scene_pictures(split, size, SIZE), loaded.preprocessing, split)
        for split, size in (("calibration", CALIBRATION), ("proof", 2))
    )
    yield image_source(loaded, calibration, proof), scenes.labelled_pictures("test", count)[0]
    texts = SourceTexts(loaded)
    source = text_source(texts, material)
    yield source, np.concatenate(list(source.proof))[:count]


def measure(name: str, source: SourceTower, inputs: NDArray[Any], scratch: Path) -> Row:
    """One row."""
    original = float_graph(source, scratch)
    graph = scaled_pixels(original, source.pixel_mean)
    largest = magnitudes(graph, source.calibration)
    kept = operations_in_float32(source.name, graph, largest)
    naive, half = to_half(graph), to_half(graph, [item.operation for item in kept])
    expected = encode(source_encoder(source.module), inputs)

    def judged(encoder: Encoder) -> Form:
        return form(expected, encode(encoder, inputs))

    session = cpu_session(half)
    return Row(
        model=name,
        tower=source.name,
        largest=max(largest.values()),
        kept=len(kept),
        operations=len(graph.graph.node),
        float_mb=original.ByteSize() / 1e6,
        half_mb=half.ByteSize() / 1e6,
        naive=judged(HalfEvaluator(naive)),
        half=judged(HalfEvaluator(half)),
        engine=judged(lambda batch: np.asarray(session.run(None, {half.graph.input[0].name: batch})[0])),
    )


def encode(encoder: Encoder, inputs: NDArray[Any]) -> Floats:
    return np.concatenate([encoder(inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)])


def form(expected: Floats, found: Floats) -> Form:
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        return Form(None, None, 100 * float(finite.mean()))
    cosines = centred_cosines(expected, found, expected.mean(axis=0))
    return Form(float(np.median(cosines)), float(np.percentile(cosines, 1)), 100.0)


def judge(rows: list[Row]) -> list[dict[str, Any]]:
    """What was asked, and what of it was found."""
    demo = [row.half.median or 0.0 for row in rows if row.model == "demonstration model"]
    last = [row for row in rows if row.model == twin_name(FACTORS[-1])]
    least = [row.half.median or 0.0 for row in last]
    overflown = min(100 - row.naive.finite for row in last)
    return [
        {
            "text": f"demonstration model in half precision: median centred cosine {NEEDED} or more",
            "found": f"{min(demo):.6f}",
            "met": min(demo) >= NEEDED,
        },
        {
            "text": f"{last[0].model}: naive conversion overflows",
            "found": f"{overflown:.0f} % of the embeddings are no numbers",
            "met": overflown > 0,
        },
        {
            "text": f"{last[0].model} as exported: {NEEDED} or more",
            "found": f"{min(least):.6f}",
            "met": min(least) >= NEEDED,
        },
    ]


def twin_name(factor: int) -> str:
    return f"outlier twin x {factor:,}"


def markdown(rows: list[Row], targets: list[dict[str, Any]], count: int, machine: dict[str, Any]) -> str:
    lines = [
        "# What half precision does to embeddings",
        "",
        f"{count:,} rendered scenes, and as many texts. Median and first percentile of the centred cosine",
        "with the float32 checkpoint in torch; naive and as exported computed in real half precision by onnx's",
        f"reference evaluator, nothing on a GPU. {machine['cpu']}; {machine['date']}.",
        "",
        "| model | tower | largest magnitude | naive | as exported | on ONNX Runtime | operations in float32 for it "
        "| float32, MB | as exported, MB |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *map(_cells, rows),
        "",
        *target_lines(targets),
    ]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> str:
    forms = " | ".join(map(_form, (row.naive, row.half, row.engine)))
    return (
        f"| {row.model} | {row.tower} | {row.largest:,.0f} | {forms} | {row.kept} of {row.operations} "
        f"| {row.float_mb:.2f} | {row.half_mb:.2f} |"
    )


def _form(found: Form) -> str:
    if found.median is None or found.p1 is None:
        return f"**overflows** ({100 - found.finite:.0f} %)"
    return f"{found.median:.6f}, {found.p1:.6f}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100, help="how many, and texts (default 100)")
    count = parser.parse_args().scenes
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        models = {"demonstration model": DEMO_CHECKPOINT}
        for factor in FACTORS:
            models[twin_name(factor)] = write_outlier_twin(DEMO_CHECKPOINT, Path(scratch) / str(factor), factor)
        with tqdm(desc="towers", total=2 * len(models), disable=not sys.stderr.isatty()) as bar:
            for name, checkpoint in models.items():
                for source, inputs in towers(checkpoint, count):
                    rows.append(measure(name, source, inputs, Path(scratch)))
                    bar.update()
    targets, machine = judge(rows), describe_machine()
    document = {"machine": machine, "scenes": count, "rows": [asdict(row) for row in rows], "targets": targets}
    publish("half_precision", document, markdown(rows, targets, count, machine))


if __name__ == "__main__":
    main()
