"""Two models side by side on rendered scenes: each answers zero-shot, and their embeddings are compared.

Every model is measured against its own source, picture by picture on scenes of the split "test", 64 x 64 pixels, 120
classes, with a paired interval. Scenes are rendered once, on all cores, and streamed past all models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, labelled_pictures
from clipedge.export.verify import compare_answers
from clipedge.parallel import cores
from clipedge.selftest import centred_cosines

SIZE = 64  # the demonstration model's: no preprocessing is in the figures
BATCH = 100

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


def label_embeds(encode_text: Any) -> Floats:
    """(classes, D), L2-normalised: the mean over the templates, as a prompt bank has it."""
    embeds = np.stack([encode_text([template.format(name) for name in CLASS_NAMES]) for template in TEMPLATES])
    mean = embeds.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)


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


def cells(row: Row) -> str:
    """A row's figures: the rest of its line in the table."""
    return (
        f"| {row.source_accuracy:.2f} | {row.int8_accuracy:.2f} | {drop_of(row)} | {row.agreement:.2f} "
        f"| {row.median_centred_cosine:.4f} | {row.p1_centred_cosine:.4f} | {row.in_float} of {row.layers} |"
    )


def drop_of(row: Row, unit: str = "") -> str:
    """``-0.10 [-0.24, +0.04]``, with a unit behind the number if one is given."""
    low, high = row.drop_interval
    return f"{row.drop_points:+.2f}{unit} [{low:+.2f}, {high:+.2f}]"


def document_of(rows: list[Row], targets: list[Target], count: int, machine: dict[str, Any]) -> dict[str, Any]:
    """What is recorded of a run, for programs."""
    return {
        "machine": machine,
        "scenes": count,
        "rows": [asdict(row) for row in rows],
        "targets": [asdict(item) for item in targets],
    }
