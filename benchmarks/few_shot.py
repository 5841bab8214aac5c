"""Few-shot teaching: shapes that the demonstration model never saw, taught by 1, 4 and 16 pictures.

    python benchmarks/few_shot.py [--seeds 6] [--bundle DIR]

A new shape (clipedge.calibration.shapes.UNSEEN: in no training scene, and no training text has its name) joins a prompt
bank of labels that the model knows: the 12 shapes, where the examples and the test scenes have any colour, or the 120
shape-colour classes, where the new class has one colour, too. Zero-shot, the new label is its text; taught, it is its
pictures alone. F1 is the new class's, over test scenes of all classes, equally many of each. "Others" is the accuracy
on the old classes' scenes minus what it was before the new label was there. A second table teaches labels that the
model knows. Scenes are of the split "test"; the constants of clipedge/prompts/taught.py were chosen on "validation".
Intervals, 95 %, are over draws of the examples (Student's t of one mean over all classes a draw). Without --bundle the
demonstration model is exported first. Writes results/few_shot.md and .json beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from numpy.typing import NDArray
from publish import demonstration_bundle, publish, target_lines

import clipedge
from clipedge.calibration.scenes import CLASS_NAMES, CLASSES, COLORS, HELD_OUT, SHAPES, UNSEEN, render, scene_of
from clipedge.classify import probabilities
from clipedge.prompts.teach import teach

Floats = NDArray[np.float32]
Bank = clipedge.PromptBank

SHAPES_BANK, CLASSES_BANK = "12 shapes", "120 shape-colour classes"
SIZE = 64  # the demonstration model's
SHOTS = (1, 4, 16)
TEST_SCENES = 12  # of each shape and colour
POOL = 24  # pictures of each new shape and colour, to draw examples from
START = 1000  # scenes before it were looked at while the method was made
MIN_GAIN, MAX_LOSS = 10.0, 1.0
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26, 20: 2.09}


@dataclass(frozen=True, eq=False)
class Side:
    """Embedded pictures, (colour, shape) -> (n, D): ``test`` by the model that answers, ``pool`` by the teacher.

    The two may be of different precisions.
    """

    name: str
    clip: clipedge.Clip
    test: dict[tuple[str, str], Floats]
    pool: dict[tuple[str, str], Floats]


@dataclass(frozen=True)
class Row:
    """F1 in percent, ``others`` in points, each (mean, low, high); ``recall`` and ``precision`` in percent."""

    side: str
    bank: str
    shots: int
    f1: tuple[float, float, float]
    others: tuple[float, float, float]
    precision: float
    recall: float


def embedded_scenes(clip: clipedge.Clip, classes: list[tuple[str, str]], start: int, count: int) -> dict[Any, Floats]:
    return {
        pair: clip.encode_image(
            np.stack([render(scene_of("test", start + i, *pair), SIZE, SIZE).picture for i in range(count)])
        )
        for pair in classes
    }


def make_sides(bundle: Path) -> list[Side]:
    """float32, INT8, and INT8 that answers with what float32 was taught."""
    new = [(color, shape) for shape in UNSEEN for color in COLORS]
    clips = {name: clipedge.load(bundle, variant=name, backend="onnxruntime") for name in ("fp32", "int8.x86")}
    test = {name: embedded_scenes(clip, [*CLASSES, *new], START, TEST_SCENES) for name, clip in clips.items()}
    pool = {name: embedded_scenes(clip, [*CLASSES, *new], START + 500, POOL) for name, clip in clips.items()}
    return [
        Side("float32", clips["fp32"], test["fp32"], pool["fp32"]),
        Side("INT8", clips["int8.x86"], test["int8.x86"], pool["int8.x86"]),
        Side("INT8, taught by float32", clips["int8.x86"], test["int8.x86"], pool["fp32"]),
    ]


@dataclass(frozen=True, eq=False)
class Problem:
    """A bank without the new label, the label, its test scenes, its pool, and the others' scenes with their places."""

    bank: Bank
    label: str
    new: Floats
    pool: Floats
    others: Floats
    truth: NDArray[np.intp]


def new_shapes(side: Side, kind: str, bank: Bank, rng: np.random.Generator) -> Iterator[Problem]:
    """One problem for each new shape; in the bank of 120 classes its colour is drawn."""
    others = np.concatenate([side.test[pair] for pair in CLASSES])
    names = CLASS_NAMES if kind == CLASSES_BANK else [shape for _, shape in CLASSES]
    truth = np.repeat([bank.labels.index(name) for name in names], TEST_SCENES)
    for shape in UNSEEN:
        colors = [list(COLORS)[rng.integers(len(COLORS))]] if kind == CLASSES_BANK else list(COLORS)
        label = f"{colors[0]} {shape}" if kind == CLASSES_BANK else shape
        new, pool = (np.concatenate([part[color, shape] for color in colors]) for part in (side.test, side.pool))
        yield Problem(bank, label, new, pool, others, truth)


def outcome(problem: Problem, bank: Bank) -> tuple[float, float, float, float]:
    """F1, precision, recall (percent) of the last label, and the others' change in points."""
    before = probabilities(problem.others, problem.bank).argmax(axis=1)
    after = probabilities(problem.others, bank).argmax(axis=1)
    place = bank.labels.index(problem.label)
    hits = int((probabilities(problem.new, bank).argmax(axis=1) == place).sum())
    claimed = hits + int((after == place).sum())
    change = (after == problem.truth).mean() - (before == problem.truth).mean()
    return (
        200 * hits / (claimed + len(problem.new)),
        100 * hits / max(claimed, 1),
        100 * hits / len(problem.new),
        100 * float(change),
    )


def measure_new(side: Side, kind: str, seeds: int) -> list[Row]:
    """Zero-shot (0 shots) and taught, over all new shapes and draws."""
    bank = side.clip.prompt_bank(SHAPES if kind == SHAPES_BANK else CLASS_NAMES)
    mean_image = side.clip.mean_image()
    found: dict[int, list[Any]] = {shots: [] for shots in (0, *SHOTS)}
    for seed in range(seeds):
        runs: dict[int, list[Any]] = {shots: [] for shots in found}
        rng = np.random.default_rng([seed, len(bank.labels)])
        for problem in new_shapes(side, kind, bank, rng):
            told = side.clip.prompt_bank([*bank.labels, problem.label])
            runs[0].append(outcome(problem, told))
            order = rng.permutation(len(problem.pool))
            for shots in SHOTS:
                taught = teach(bank, problem.label, problem.pool[order[:shots]], mean_image)
                runs[shots].append(outcome(problem, taught))
        for shots, values in runs.items():
            found[shots].append(np.mean(values, axis=0))
    return [_row(side.name, kind, shots, np.array(values)) for shots, values in found.items()]


def measure_known(side: Side, kind: str, seeds: int) -> list[Row]:
    """Labels that the bank has already: all 12 shapes, or the 12 combinations that training never showed."""
    bank = side.clip.prompt_bank(SHAPES if kind == SHAPES_BANK else CLASS_NAMES)
    labels = SHAPES if kind == SHAPES_BANK else tuple(f"{color} {shape}" for color, shape in sorted(HELD_OUT))
    names = CLASS_NAMES if kind == CLASSES_BANK else tuple(shape for _, shape in CLASSES)
    scenes: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    for name, pair in zip(names, CLASSES, strict=True):
        scenes[name].append(pair)
    found: dict[int, list[Any]] = {shots: [] for shots in (0, *SHOTS)}
    for seed in range(seeds):
        rng = np.random.default_rng([seed, len(bank.labels), 1])
        runs: dict[int, list[Any]] = {shots: [] for shots in found}
        for label in labels:
            mine, rest = scenes[label], [pair for name, pairs in scenes.items() if name != label for pair in pairs]
            pool = np.concatenate([side.pool[pair] for pair in mine])
            truth = [bank.labels.index(name) for name, pairs in scenes.items() if name != label for _ in pairs]
            others = np.concatenate([side.test[pair] for pair in rest])
            new = np.concatenate([side.test[pair] for pair in mine])
            problem = Problem(bank, label, new, pool, others, np.repeat(truth, TEST_SCENES))
            order = rng.permutation(len(pool))
            runs[0].append(outcome(problem, bank))
            for shots in SHOTS:
                taught = teach(bank, label, pool[order[:shots]], side.clip.mean_image())
                runs[shots].append(outcome(problem, taught))
        for shots, values in runs.items():
            found[shots].append(np.mean(values, axis=0))
    return [_row(side.name, kind, shots, np.array(values)) for shots, values in found.items()]


def _row(side: str, kind: str, shots: int, values: NDArray[np.float64]) -> Row:
    f1, precision, recall, others = values.T
    return Row(side, kind, shots, _interval(f1), _interval(others), float(precision.mean()), float(recall.mean()))


def _interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    mean = float(values.mean())
    margin = STUDENT[len(values)] * float(values.std(ddof=1)) / len(values) ** 0.5
    return mean, mean - margin, mean + margin


def judge(rows: list[Row]) -> list[dict[str, Any]]:
    """The acceptance, for 4 examples of a new shape: the gain over zero-shot and the others' change, by their means."""
    zero = {(row.side, row.bank): row.f1[0] for row in rows if row.shots == 0}
    targets = []
    for row in (row for row in rows if row.shots == 4):
        gain = row.f1[0] - zero[row.side, row.bank]
        name, lost = f"{row.side}, {row.bank}, 4 examples", -row.others[0]
        text = f"{name}: F1 {MIN_GAIN:g} points above zero-shot"
        targets.append({"text": text, "found": f"{gain:+.1f}", "met": gain >= MIN_GAIN})
        text = f"{name}: others lose at most {MAX_LOSS:g} point"
        targets.append({"text": text, "found": f"{lost:.2f}", "met": lost <= MAX_LOSS})
    return targets


def markdown(document: dict[str, Any]) -> str:
    machine = document["machine"]
    lines = [
        "# Few-shot teaching",
        "",
        f"The demonstration model; {len(UNSEEN)} shapes it never saw ({', '.join(UNSEEN)}),",
        f"{document['seeds']} draws of examples, {TEST_SCENES} test scenes of each shape and colour.",
        "F1, precision and recall of the new class, in percent.",
        "Others: change of the accuracy on the old classes' scenes, in points, against the bank without the new label.",
        "Means over shapes and draws [95 % interval over draws]. 0 examples: zero-shot, by the new label's text.",
        f"{machine['cpu']}, {machine['date']}.",
        "",
        *_table(document["new"]),
        "",
        *target_lines(document["targets"]),
        "",
        "Examples for labels that the model knows: the 12 shapes in their bank, and in the bank of 120 the 12",
        "combinations that training never showed. There is little to gain; nothing should be lost.",
        "",
        *_table(document["known"]),
    ]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    head = ["| model | labels | examples | F1 | precision | recall | others |", "|---|---|---:|---:|---:|---:|---:|"]
    return head + [
        f"| {row['side']} | {row['bank']} | {row['shots']} | {_cell(row['f1'], '.1f')} | {row['precision']:.1f} "
        f"| {row['recall']:.1f} | {_cell(row['others'], '+.2f')} |"
        for row in rows
    ]


def _cell(interval: tuple[float, float, float], form: str) -> str:
    mean, low, high = (format(value, form) for value in interval)
    return f"{mean} [{low}, {high}]"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, choices=sorted(STUDENT), default=6, help="draws of examples (default 6)")
    parser.add_argument("--bundle", type=Path, help="the demonstration model in fp32 and int8 (default: export it)")
    arguments = parser.parse_args()
    with demonstration_bundle(arguments.bundle) as bundle:
        sides, kinds = make_sides(bundle), (SHAPES_BANK, CLASSES_BANK)
        new = [row for side in sides for kind in kinds for row in measure_new(side, kind, arguments.seeds)]
        known = [row for side in sides[:2] for kind in kinds for row in measure_known(side, kind, arguments.seeds)]
    document = {
        "machine": describe_machine(),
        "seeds": arguments.seeds,
        "new": [asdict(row) for row in new],
        "targets": judge(new),
        "known": [asdict(row) for row in known],
    }
    page = markdown(document)
    publish("few_shot", document, page)


if __name__ == "__main__":
    main()
