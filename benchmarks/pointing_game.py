"""The pointing game: is a heatmap highest on the object that its label names?

    python benchmarks/pointing_game.py [--scenes 1500] [--split test] [--bundle DIR]

Scenes of two objects (clipedge.calibration.scenes, drawn at 320 x 240 pixels) are shown to the demonstration model, and
for each object a heatmap is made for its label. A hit is a map whose highest pixel lies inside that object's mask, at
the picture's own pixels (Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop", arXiv 1608.00507).
Chance is the share of what the model sees of the picture that the mask covers: what a random point would hit. "Other"
is how often the map points at the other object. "Box" is how often the first box overlaps the object's by half
(intersection over union).

A map tells a label from a prompt bank's other labels. Banks: the 120 classes of the demonstration; the two labels of
the scene; the label alone, which is then told from nothing. Intervals, 95 %, are over scenes. The form of the dense
output was chosen on the split "validation" by benchmarks/dense_forms.py, the boxes' share by this script with --share.
Without --bundle the demonstration model is exported first. Prints the page, and writes it with the split "test" and the
share that boxes have as results/pointing_game.md, with the figures beside it as .json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from numpy.typing import NDArray
from publish import demonstration_bundle, publish, target_lines

import clipedge
from clipedge.calibration.scenes import CLASS_NAMES, Rendered, render, sample_scene
from clipedge.heatmaps.boxes import SHARE, heatmap_boxes
from clipedge.heatmaps.maps import Heatmap, label_map, seen_region

Bank = clipedge.PromptBank

WIDTH, HEIGHT = 320, 240
BATCH = 50  # scenes in memory
VARIANTS = ("fp32", "int8.x86")
BANKS = ("120 classes", "the scene's two labels", "the label alone")
MIN_ACCURACY, MIN_ABOVE_CHANCE = 70.0, 25.0  # the acceptance, in percent and in points
MIN_OVERLAP = 0.5


@dataclass(frozen=True)
class Row:
    """One variant with one bank, in percent: accuracy with its interval, pointing at the other object, boxes."""

    variant: str
    bank: str
    accuracy: tuple[float, float, float]
    other: float
    box: float


def measure(bundle: Path, split: str, scenes: int, box_share: float) -> tuple[float, list[Row]]:
    """The chance level in percent, and the rows."""
    clips = {name: clipedge.load(bundle, variant=name) for name in VARIANTS}
    bank = clips["fp32"].prompt_bank(CLASS_NAMES)
    chances: list[float] = []
    found: dict[tuple[str, str], list[list[tuple[bool, bool, bool]]]] = {}
    for start in range(0, scenes, BATCH):
        drawn = [draw(split, index) for index in range(start, min(start + BATCH, scenes))]
        region = seen_region((WIDTH, HEIGHT), clips["fp32"].manifest.preprocessing)
        chances += [share(mask, region) for _, rendered in drawn for mask in rendered.masks]
        for variant, clip in clips.items():
            embeds = clip.encode_patches([rendered.picture for _, rendered in drawn])
            for (labels, rendered), patches in zip(drawn, embeds, strict=True):
                for name, narrowed in zip(BANKS, (bank, restricted(bank, labels), None), strict=True):
                    banks = [narrowed or restricted(bank, [label]) for label in labels]
                    maps = [
                        Heatmap(label, label_map(patches, one, label), (WIDTH, HEIGHT), region)
                        for label, one in zip(labels, banks, strict=True)
                    ]
                    found.setdefault((variant, name), []).append(
                        [judge(maps[i], rendered, i, box_share) for i in range(2)]
                    )
    return 100 * float(np.mean(chances)), [_row(*key, np.array(values)) for key, values in found.items()]


def draw(split: str, index: int) -> tuple[list[str], Rendered]:
    """A scene's two labels and its picture."""
    scene = sample_scene(split, index, objects=2)
    return [f"{item.color} {item.shape}" for item in scene.objects], render(scene, WIDTH, HEIGHT)


def restricted(bank: Bank, labels: Sequence[str]) -> Bank:
    """The bank with these of its labels alone."""
    rows = bank.label_embeds[[bank.labels.index(label) for label in labels]]
    return Bank(rows, tuple(labels), bank.templates, bank.logit_scale, bank.logit_bias, bank.activation, bank.space_id)


def share(mask: NDArray[np.bool_], region: tuple[float, float, float, float]) -> float:
    """How much of the region a mask covers; objects of scenes lie inside it."""
    left, top, right, bottom = region
    return float(mask.sum() / ((right - left) * (bottom - top)))


def judge(heatmap: Heatmap, rendered: Rendered, index: int, box_share: float) -> tuple[bool, bool, bool]:
    """Whether the map points at object ``index``, whether at the other one, and whether its first box fits."""
    x, y = heatmap.peak
    boxes = heatmap_boxes(heatmap, box_share)
    fits = bool(boxes) and overlap(boxes[0], rendered.boxes[index]) >= MIN_OVERLAP
    return bool(rendered.masks[index, y, x]), bool(rendered.masks[1 - index, y, x]), fits


def overlap(box: Any, truth: NDArray[np.int64]) -> float:
    """Intersection over union."""
    left, top, right, bottom = truth.tolist()
    across = max(0, min(box.right, right) - max(box.left, left))
    down = max(0, min(box.bottom, bottom) - max(box.top, top))
    both = across * down
    areas = (box.right - box.left) * (box.bottom - box.top) + (right - left) * (bottom - top)
    return both / (areas - both)


def _row(variant: str, bank: str, outcomes: NDArray[np.bool_]) -> Row:
    """``outcomes``: (scenes, 2 objects, what ``judge`` says)."""
    hits = 100 * outcomes[:, :, 0].mean(axis=1)  # the two objects of a scene are no two independent trials
    mean, margin = float(hits.mean()), 1.96 * float(hits.std(ddof=1)) / len(hits) ** 0.5
    other, box = (100 * float(outcomes[:, :, place].mean()) for place in (1, 2))
    return Row(variant, bank, (mean, mean - margin, mean + margin), other, box)


def verdicts(chance: float, rows: list[Row]) -> list[dict[str, Any]]:
    """The acceptance, with the demonstration's own bank."""
    targets = []
    for row in (row for row in rows if row.bank == BANKS[0]):
        accuracy = row.accuracy[0]
        text = f"{row.variant}: at least {MIN_ACCURACY:g} % and {MIN_ABOVE_CHANCE:g} points above chance"
        met = accuracy >= MIN_ACCURACY and accuracy >= chance + MIN_ABOVE_CHANCE
        targets.append({"text": text, "found": f"{accuracy:.1f} %, {accuracy - chance:+.1f}", "met": met})
    return targets


def markdown(document: dict[str, Any]) -> str:
    machine = document["machine"]
    lines = [
        "# The pointing game",
        "",
        f'The demonstration model; {document["scenes"]} scenes of two objects of the split "{document["split"]}",',
        f"{WIDTH} x {HEIGHT} pixels, a map for each object's label. In percent.",
        "Hit: the map's highest pixel lies inside the named object's mask [95 % interval over scenes].",
        f"Chance: {document['chance']:.1f}, the mean share of the model's view that a mask covers.",
        "Other: the highest pixel lies on the other object. Box: the first box overlaps the object's by half.",
        f"{machine['cpu']}, {machine['date']}.",
        "",
        "| variant | label told from | hit | other | box |",
        "|---|---|---:|---:|---:|",
    ]
    for row in document["rows"]:
        mean, low, high = row["accuracy"]
        lines.append(
            f"| {row['variant']} | {row['bank']} | {mean:.1f} [{low:.1f}, {high:.1f}] "
            f"| {row['other']:.1f} | {row['box']:.1f} |"
        )
    lines += ["", *target_lines(document["targets"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1500, help="scenes of two objects (default 1500)")
    parser.add_argument("--split", default="test", help="from which split (default test)")
    parser.add_argument("--share", type=float, default=SHARE, help="of the highest value, that boxes are cut at")
    parser.add_argument("--bundle", type=Path, help="the demonstration model in fp32 and int8, exported with --dense")
    arguments = parser.parse_args()
    with demonstration_bundle(arguments.bundle, dense=True) as bundle:
        chance, rows = measure(bundle, arguments.split, arguments.scenes, arguments.share)
    document = {
        "machine": describe_machine(),
        "split": arguments.split,
        "scenes": arguments.scenes,
        "chance": chance,
        "rows": [asdict(row) for row in rows],
        "targets": verdicts(chance, rows),
    }
    page = markdown(document)
    if arguments.split == "test" and arguments.share == SHARE:
        publish("pointing_game", document, page)
    else:
        print(page, end="")


if __name__ == "__main__":
    main()
