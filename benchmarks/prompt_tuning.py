"""Bad names and what helps them: ensembles, chosen templates, label embeddings tuned on a few pictures.

    python benchmarks/prompt_tuning.py [--draws 5] [--bundle DIR]

The demonstration model tells scenes apart by labels that are badly worded on purpose: 12 names of shapes in other words
than the training captions', 12 with needless words, and 120 of shapes and colours in the wrong order with typing
errors. Accuracy is on scenes of the split "test", with the names alone, with an ensemble of templates, and with what
`clipedge prompts --tune` makes of 4 and 16 pictures a label of the split "proof". Controls are labels that are well
worded, and truths that are shuffled among the pictures: there nothing can be gained, and nothing may be kept that
loses. Bad names, and the numbers of clipedge/tuning/label_probe.py, were chosen on other scenes than those measured
here.

A gain is the mean over the draws of pictures, its 95 % interval over the scenes, paired. Without --bundle the
demonstration model is exported first. Writes results/prompt_tuning.md and .json beside this file, and prints the
former.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from numpy.typing import NDArray
from publish import demonstration_bundle, publish, target_lines

import clipedge
from clipedge.calibration.scenes import CLASSES, SHAPES, labelled_pictures, render, scene_of
from clipedge.calibration.scenes import TEMPLATES as CAPTIONS
from clipedge.classify import probabilities
from clipedge.prompts.bank import template_embeds
from clipedge.prompts.templates import TEMPLATE_SETS
from clipedge.tuning.tuning import Tuning, tune_bank

Floats = NDArray[np.float32]
Bank = clipedge.PromptBank

SIZE = 64  # the demonstration model's
TEST_SCENES = 6000
START = 6000  # scenes before it were looked at while names and shrinkages were chosen
POOL = 20  # pictures of each shape and colour, to draw from
NAMES, ENSEMBLE = "the names alone", "ensemble of all templates"
CHOICE, BOTH = "templates chosen", "templates chosen, label embeddings tuned"
ODD, NEEDLESS, TYPING = "12 shapes, odd words", "12 shapes, needless words", "120 classes, typing errors"
BAD, GOOD = (ODD, NEEDLESS, TYPING), "12 shapes, well worded"
ODD_WORDS = (
    "circular", "square shape thing", "triangular", "diamonds", "starry", "heart-like",
    "crossed", "ring-like thing", "crescent moon", "arrow-shaped", "hour glass", "house-ish",
)  # fmt: skip
MISTYPED = dict(
    zip(
        SHAPES,
        (
            "cirlce", "sqaure", "trianlge", "dimaond", "satr", "haert",
            "corss", "rnig", "crecsent", "arorw", "huorglass", "huose",
        ),
        strict=True,
    )
)  # fmt: skip
CANDIDATES = tuple(dict.fromkeys((*TEMPLATE_SETS["photos"], *CAPTIONS)))


@dataclass(frozen=True, eq=False)
class Side:
    """Embedded pictures: ``test`` (N, D) with their ``classes`` (N,), and ``pool`` (classes, n, D) to draw from."""

    name: str
    clip: clipedge.Clip
    test: Floats
    classes: NDArray[np.int64]
    pool: Floats


@dataclass(frozen=True)
class Labels:
    """``names`` in the bank, which of them each of ``CLASSES`` is, and how many pictures of each are tried."""

    names: tuple[str, ...]
    places: NDArray[np.intp]
    shots: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """``accuracy`` in percent; gains in points (mean, low, high), over the names alone and over their ensemble.

    ``kept`` says in how many of the ``draws`` something was kept, ``worst`` is the least gain over the ensemble of
    these (None for none).
    """

    side: str
    labels: str
    what: str
    shots: int
    accuracy: float
    over_names: tuple[float, float, float] | None
    over_ensemble: tuple[float, float, float] | None
    kept: int
    draws: int
    worst: float | None


def label_sets() -> dict[str, Labels]:
    """By what they are called in the tables."""
    shapes = np.array([SHAPES.index(shape) for _, shape in CLASSES])
    mistyped = tuple(f"{MISTYPED[shape]}, {color}" for color, shape in CLASSES)
    return {
        ODD: Labels(ODD_WORDS, shapes, (4, 16)),
        NEEDLESS: Labels(tuple(f"{shape}-like thing" for shape in SHAPES), shapes, (4, 16)),
        TYPING: Labels(mistyped, np.arange(len(CLASSES)), (4,)),
        GOOD: Labels(SHAPES, shapes, (4, 16)),
    }


def make_sides(bundle: Path) -> list[Side]:
    """float32 and INT8, both towers."""
    pictures, classes = labelled_pictures("test", TEST_SCENES, size=SIZE, start=START)
    pool = [render(scene_of("proof", START + i, *pair), SIZE, SIZE).picture for pair in CLASSES for i in range(POOL)]
    sides = []
    for name, variant in (("float32", "fp32"), ("INT8", "int8.x86")):
        clip = clipedge.load(bundle, variant=variant, backend="onnxruntime")
        embeds = clip.encode_image(np.stack(pool)).reshape(len(CLASSES), POOL, -1)
        sides.append(Side(name, clip, clip.encode_image(pictures), classes, embeds))
    return sides


def drawn(side: Side, labels: Labels, shots: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """``shots`` pictures of each label, of any of its classes, and their labels."""
    truths = np.repeat(np.arange(len(labels.names)), shots)
    pools = [side.pool[labels.places == label].reshape(-1, side.pool.shape[2]) for label in range(len(labels.names))]
    return np.concatenate([pool[rng.permutation(len(pool))[:shots]] for pool in pools]), truths


def with_choice(bank: Bank, texts: Floats, tuning: Tuning) -> Bank:
    """The plain bank with what was kept of the choice of templates alone."""
    choice = tuning.trials[0]
    if not choice.kept or choice.template_counts is None:
        return bank
    rows = np.tensordot(texts, np.array(choice.template_counts, np.float32), ([1], [0]))
    return replace(bank, label_embeds=rows / np.linalg.norm(rows, axis=1, keepdims=True))


def measure(side: Side, title: str, labels: Labels, draws: int) -> list[Row]:
    """The names alone, their ensemble, and what pictures add to it."""
    ensemble = side.clip.prompt_bank(labels.names, CANDIDATES)
    texts = template_embeds(side.clip.encode_text, ensemble)
    names, plain = right(side, labels, side.clip.prompt_bank(labels.names, ["{}"])), right(side, labels, ensemble)
    rows = [
        Row(side.name, title, NAMES, 0, 100 * float(names.mean()), None, None, 0, 0, None),
        Row(side.name, title, ENSEMBLE, 0, 100 * float(plain.mean()), interval(plain - names), None, 0, 0, None),
    ]
    for shots in labels.shots:
        chosen, tuned = [], []
        for draw in range(draws):
            pictures, truths = drawn(side, labels, shots, np.random.default_rng([draw, shots]))
            bank, tuning = tune_bank(ensemble, pictures, truths, texts)
            choice = with_choice(ensemble, texts, tuning)
            chosen.append((choice is not ensemble, right(side, labels, choice)))
            tuned.append((bank is not ensemble, right(side, labels, bank)))
        rows.append(_row(side, title, CHOICE, shots, chosen, names, plain))
        rows.append(_row(side, title, BOTH, shots, tuned, names, plain))
    return rows


def measure_shuffled(side: Side, title: str, labels: Labels, draws: int) -> list[Row]:
    """What is kept of truths that say nothing."""
    ensemble = side.clip.prompt_bank(labels.names, CANDIDATES)
    texts = template_embeds(side.clip.encode_text, ensemble)
    names, plain = right(side, labels, side.clip.prompt_bank(labels.names, ["{}"])), right(side, labels, ensemble)
    rows = []
    for shots in labels.shots:
        found = []
        for draw in range(draws):
            rng = np.random.default_rng([draw, shots])
            pictures, truths = drawn(side, labels, shots, rng)
            bank, _ = tune_bank(ensemble, pictures, rng.permutation(truths), texts)
            found.append((bank is not ensemble, right(side, labels, bank)))
        rows.append(_row(side, f"{title}, shuffled truths", BOTH, shots, found, names, plain))
    return rows


def right(side: Side, labels: Labels, bank: Bank) -> NDArray[np.float64]:
    """(N,): 1 where the bank names a test scene's label."""
    return (probabilities(side.test, bank).argmax(axis=1) == labels.places[side.classes]).astype(np.float64)


def interval(gains: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and 95 % interval over scenes, in points."""
    mean, margin = float(gains.mean()), 1.96 * float(gains.std(ddof=1)) / len(gains) ** 0.5
    return 100 * mean, 100 * (mean - margin), 100 * (mean + margin)


def _row(
    side: Side,
    title: str,
    what: str,
    shots: int,
    found: list[tuple[bool, NDArray[np.float64]]],
    names: NDArray[np.float64],
    plain: NDArray[np.float64],
) -> Row:
    mean = np.mean([rights for _, rights in found], axis=0)
    gains = [100 * float((rights - plain).mean()) for kept, rights in found if kept]
    accuracy, worst = 100 * float(mean.mean()), min(gains, default=None)
    over_names, over_ensemble = interval(mean - names), interval(mean - plain)
    return Row(side.name, title, what, shots, accuracy, over_names, over_ensemble, len(gains), len(found), worst)


def judge(rows: list[Row]) -> list[dict[str, Any]]:
    """The acceptance: gains whose whole interval is above 0, and nothing kept that loses."""
    targets = []
    for row in (row for row in rows if row.labels in BAD and row.what in (ENSEMBLE, BOTH)):
        gain = row.over_names if row.what == ENSEMBLE else row.over_ensemble
        over = "the names alone" if row.what == ENSEMBLE else "the ensemble"
        assert gain is not None
        name = f"{row.side}, {row.labels}: {row.what}{f', {row.shots} pictures' if row.shots else ''}"
        found = f"{gain[0]:+.1f} [{gain[1]:+.1f}, {gain[2]:+.1f}]"
        targets.append({"text": f"{name}: a gain over {over}", "found": found, "met": gain[1] > 0})
    worst = [row.worst for row in rows if row.worst is not None]
    kept, draws = (sum(getattr(row, name) for row in rows if row.what == BOTH) for name in ("kept", "draws"))
    text = f"no bank that was kept ({kept} of {draws}) loses on the test scenes"
    targets.append({"text": text, "found": f"worst {min(worst):+.2f}", "met": min(worst) >= 0})
    return targets


def markdown(document: dict[str, Any]) -> str:
    machine = document["machine"]
    lines = [
        "# Prompt tuning",
        "",
        f'The demonstration model on {TEST_SCENES} scenes of the split "test", '
        "by names that are badly worded on purpose:",
        f"{'; '.join(f'{title} ({name!r}, ...)' for title, name in document['examples'].items())}.",
        f"Ensembles and choices are of {len(CANDIDATES)} templates: "
        'the set "photos" and those of the training captions.',
        f"{document['draws']} draws of pictures a row. Accuracy in percent, the mean over the draws; gains in points",
        "[95 % interval over scenes, paired]. Kept: in how many draws held-out pictures proved a gain; in the others",
        "the bank is the plain ensemble. Worst: the least gain over the ensemble of a bank that was kept.",
        f"{machine['cpu']}, {machine['date']}.",
        "",
        "| model | labels | | pictures a label | accuracy | over the names alone | over the ensemble | kept | worst |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
        *(_line(row) for row in document["rows"]),
        "",
        *target_lines(document["targets"]),
    ]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    gains = [
        "" if gain is None else f"{gain[0]:+.2f} [{gain[1]:+.2f}, {gain[2]:+.2f}]"
        for gain in (row["over_names"], row["over_ensemble"])
    ]
    kept = f"{row['kept']} of {row['draws']}" if row["draws"] else ""
    worst = "" if row["worst"] is None else f"{row['worst']:+.2f}"
    cells = (row["side"], row["labels"], row["what"], row["shots"] or "", f"{row['accuracy']:.2f}", *gains, kept, worst)
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5, help="draws of pictures (default 5)")
    parser.add_argument("--bundle", type=Path, help="the demonstration model in fp32 and int8 (default: export it)")
    arguments = parser.parse_args()
    with demonstration_bundle(arguments.bundle) as bundle:
        sides, sets = make_sides(bundle), label_sets()
        draws = arguments.draws
        rows = [row for side in sides for title, labels in sets.items() for row in measure(side, title, labels, draws)]
        rows += [row for side in sides for row in measure_shuffled(side, ODD, sets[ODD], draws)]
    document = {
        "machine": describe_machine(),
        "draws": draws,
        "examples": {title: sets[title].names[0] for title in BAD},
        "rows": [asdict(row) for row in rows],
        "targets": judge(rows),
    }
    page = markdown(document)
    publish("prompt_tuning", document, page)


if __name__ == "__main__":
    main()
