"""Decisions: "none of these" for shapes that the demonstration model never saw, and how sure it says it is.

    python benchmarks/decisions.py [--bundle DIR]

Banks of the 12 shapes and of the 120 shape-colour classes meet scenes of the 7 shapes of
clipedge.calibration.shapes.UNSEEN, of any colour. What `clipedge prompts --fit --recall 0.95` writes is fitted on
scenes of the split "validation" and measured on "test", twice: 3 of the 7 stand for the unknown in the fit and the
other 4 are met, and the other way round, so that what is met is unknown to the fit, too. The plain maximum-probability
rule (Hendrycks & Gimpel 2017) is the softmax over the labels alone with one threshold, fitted on the same pictures.

Recall is the share of right answers that are kept. "At 95 %" moves each rule's threshold (ours: all of its thresholds'
log-odds together) until it keeps exactly that many of the test's. Calibration error: 15 bins, over known and unknown
test scenes, before and after temperature and floor. Several labels to a picture: fitted on the same scenes of one
object, measured on scenes of one and of two. What was chosen while the method was made was chosen on "validation".
Without --bundle the demonstration model is exported first. Writes results/decisions.md and .json, and prints the
former.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from decisions_page import markdown
from machine import describe_machine
from numpy.typing import NDArray
from publish import demonstration_bundle, publish

import clipedge
from clipedge.calibration.scenes import CLASS_NAMES, COLORS, SHAPES, UNSEEN, render, sample_scene, scene_of
from clipedge.classify import decision_logits
from clipedge.decisions.fitting import fit_rule
from clipedge.decisions.rule import DecisionRule, accepted, margins
from clipedge.decisions.temperature import calibration_error, reliability
from clipedge.decisions.thresholds import plain_rule
from clipedge.evaluation.intervals import Accuracy, Difference, accuracy, in_points, paired_difference

SIZE = 64  # the demonstration model's
MODELS = {"float32": "fp32", "INT8": "int8.x86"}
BANKS = {"12 shapes": SHAPES, "120 classes": CLASS_NAMES}
NEGATIVES = ("something else",)
FOLDS = (UNSEEN[:3], UNSEEN[3:])  # what is unknown in one fit is met by the other's rule
FIT_SCENES = 12  # of each shape and colour, of the split "validation"
KNOWN_SCENES, UNKNOWN_SCENES = 50, 75  # of each shape and colour, of the split "test"
PAIRS = 2000  # scenes of two objects
START = 2000  # scenes of "test" before it were looked at while other methods were made
RECALL = 0.95

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Embeddings (N, D), and what they show: places in ``SHAPES + UNSEEN`` and in ``COLORS``."""

    embeds: Floats
    shapes: NDArray[np.int64]
    colors: NDArray[np.int64]

    def truths(self, labels: int) -> NDArray[np.int64]:
        """(N,): the label's place in a bank of so many labels, -1 for unknown shapes."""
        places = self.shapes if labels == len(SHAPES) else self.colors * len(SHAPES) + self.shapes
        return np.where(self.shapes < len(SHAPES), places, -1)

    def of(self, shapes: tuple[str, ...]) -> Pictures:
        rows = np.isin(self.shapes, [(SHAPES + UNSEEN).index(shape) for shape in shapes])
        return Pictures(self.embeds[rows], self.shapes[rows], self.colors[rows])


@dataclass(frozen=True)
class Rejection:
    """Share of right answers kept and of unknown scenes answered with "none", by the plain rule and the fitted one."""

    plain_recall: Accuracy
    recall: Accuracy
    plain_rejected: Accuracy
    rejected: Accuracy
    gain: Difference


@dataclass(frozen=True)
class Row:
    """One bank on one precision; over both fits. ``by_shape`` is the share rejected at 95 % (plain, fitted)."""

    model: str
    bank: str
    accuracy: Accuracy
    temperatures: tuple[float, ...]
    floors: tuple[float | None, ...]
    as_fitted: Rejection
    at_recall: Rejection
    by_shape: dict[str, tuple[float, float]]
    calibration_error: tuple[float, float]


@dataclass(frozen=True)
class Several:
    """Every label on its own, on ``scenes`` of one object or of two.

    ``said``: how often a label is an answer for each time that it is there, of the least and of the most said one.
    """

    model: str
    scenes: str
    rule: str
    precision: float
    recall: float
    f1: float
    said: tuple[float, float]
    unknown_answered: float


def embedded(clip: clipedge.Clip, split: str, start: int, shapes: tuple[str, ...], count: int) -> Pictures:
    """``count`` scenes of each shape in each colour."""
    pairs = [(color, shape) for shape in shapes for color in COLORS]
    scenes = [[scene_of(split, start + i, *pair) for i in range(count)] for pair in pairs]
    embeds = [clip.encode_image(np.stack([render(s, SIZE, SIZE).picture for s in group])) for group in scenes]
    places = [((SHAPES + UNSEEN).index(shape), list(COLORS).index(color)) for color, shape in pairs]
    shown = np.repeat(np.array(places, np.int64), count, axis=0)
    return Pictures(np.concatenate(embeds), shown[:, 0], shown[:, 1])


@dataclass(frozen=True, eq=False)
class Met:
    """The test scenes of one fit: margins of both rules, which known are named right, and which are unknown."""

    plain: NDArray[np.float64]
    fitted: NDArray[np.float64]
    right: Bools
    unknown: Bools
    shapes: NDArray[np.int64]
    rule: DecisionRule
    errors: tuple[float, float]

    def cuts(self) -> tuple[float, float]:
        """Where each rule keeps 95 % of the right answers."""
        low, high = (
            np.quantile(margin[self.right], 1 - RECALL, method="lower") for margin in (self.plain, self.fitted)
        )
        return float(low), float(high)


def fits(clip: clipedge.Clip, labels: tuple[str, ...], examples: Pictures, test: Pictures) -> Iterator[Met]:
    """One for each fold: fitted with its unknown shapes, met by the other ones."""
    bank = clip.prompt_bank(labels, negatives=NEGATIVES)
    for unknown in FOLDS:
        seen = examples.of(SHAPES + unknown)
        met = test.of((*SHAPES, *(shape for shape in UNSEEN if shape not in unknown)))
        truths, there = seen.truths(len(labels)), met.truths(len(labels))
        fitted, fit = fit_rule(bank, seen.embeds, truths, variant=clip.image_variant, recall=RECALL)
        rule = fitted.rule
        if rule is None or not rule.thresholds:
            raise SystemExit(f"the fit was not kept: {fit.thresholds_refused}")
        plain = plain_rule(decision_logits(seen.embeds, bank).without_negatives(), truths, RECALL)
        before, after = decision_logits(met.embeds, bank), decision_logits(met.embeds, fitted)
        errors = [
            calibration_error(reliability(logits, there, temperature, False))
            for logits, temperature in ((before, 1.0), (after, rule.temperature))
        ]
        yield Met(
            plain=margins(before.without_negatives(), plain),
            fitted=margins(after, rule),
            right=before.labels.argmax(axis=1) == there,
            unknown=there < 0,
            shapes=met.shapes,
            rule=rule,
            errors=(errors[0], errors[1]),
        )


def measure(model: str, bank: str, clip: clipedge.Clip, examples: Pictures, test: Pictures) -> Row:
    """Both folds together."""
    met = list(fits(clip, BANKS[bank], examples, test))
    kept = [(m.plain >= plain, m.fitted >= cut) for m in met for plain, cut in [m.cuts()]]
    return Row(
        model=model,
        bank=bank,
        accuracy=accuracy(met[0].right[~met[0].unknown]),
        temperatures=tuple(m.rule.temperature for m in met),
        floors=tuple(m.rule.floor for m in met),
        as_fitted=_rejection(met, [(m.plain >= 0, m.fitted >= 0) for m in met]),
        at_recall=_rejection(met, kept),
        by_shape={
            (SHAPES + UNSEEN)[shape]: (
                float(1 - plain[m.shapes == shape].mean()),
                float(1 - fitted[m.shapes == shape].mean()),
            )
            for m, (plain, fitted) in zip(met, kept, strict=True)
            for shape in np.unique(m.shapes[m.unknown])
        },
        calibration_error=(float(np.mean([m.errors[0] for m in met])), float(np.mean([m.errors[1] for m in met]))),
    )


def _rejection(met: list[Met], kept: list[tuple[Bools, Bools]]) -> Rejection:
    """``kept``: which scenes get an answer from the plain rule and from the fitted one, for each fold.

    A known scene is in both folds; its interval is that of one.
    """
    rejected = [np.concatenate([~answers[i][m.unknown] for m, answers in zip(met, kept, strict=True)]) for i in (0, 1)]
    recalls = [np.mean([answers[i][m.right].mean() for m, answers in zip(met, kept, strict=True)]) for i in (0, 1)]
    known = int(met[0].right.sum())
    plain, ours = (accuracy(np.arange(known) < round(recall * known)) for recall in recalls)
    gain = paired_difference(rejected[1], rejected[0])
    return Rejection(plain, ours, accuracy(rejected[0]), accuracy(rejected[1]), gain)


def several_labels(model: str, clip: clipedge.Clip, examples: Pictures, test: Pictures) -> list[Several]:
    """Without a fit and fitted."""
    scenes = [sample_scene("test", START + i, objects=2) for i in range(PAIRS)]
    pairs = clip.encode_image(np.stack([render(scene, SIZE, SIZE).picture for scene in scenes]))
    in_pairs = np.array([[shape in {item.shape for item in scene.objects} for shape in SHAPES] for scene in scenes])
    single = test.of(SHAPES)
    met = {"one": (single.embeds, single.shapes[:, None] == np.arange(len(SHAPES))), "two": (pairs, in_pairs)}
    unknown = test.embeds[test.shapes >= len(SHAPES)]
    bank = clip.prompt_bank(SHAPES, negatives=NEGATIVES)
    truths = examples.truths(len(SHAPES))
    fitted, _ = fit_rule(bank, examples.embeds, truths, variant=clip.image_variant, multi_label=True)
    found = []
    for objects, (embeds, there) in met.items():
        for name, one in (("no fit", bank), ("fitted", fitted)):
            rule = one.rule or DecisionRule(1.0, (), True, "")
            chosen = accepted(decision_logits(embeds, one, True), rule)
            answered = accepted(decision_logits(unknown, one, True), rule).any(axis=1)
            hits, said = int((chosen & there).sum()), chosen.sum(axis=0) / there.sum(axis=0)
            precision, recall = hits / max(int(chosen.sum()), 1), hits / int(there.sum())
            f1 = 2 * hits / (int(chosen.sum()) + int(there.sum()))
            bounds = float(said.min()), float(said.max())
            found.append(Several(model, objects, name, precision, recall, f1, bounds, float(answered.mean())))
    return found


def judge(rows: list[Row]) -> list[dict[str, Any]]:
    """The acceptance, line by line."""
    targets = []
    for row in rows:
        gain, (before, after) = row.at_recall.gain, row.calibration_error
        text = f"{row.model}, {row.bank}: at {RECALL:.0%} recall more of the unknown rejected than by the plain rule"
        targets.append({"text": text, "found": in_points(gain), "met": gain.value > 0 and gain.beyond_noise})
        text, found = f"{row.model}, {row.bank}: calibration error falls", f"{before:.3f} to {after:.3f}"
        targets.append({"text": text, "found": found, "met": after < before})
    return targets


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the demonstration model in fp32 and int8 (default: export it)")
    arguments = parser.parse_args()
    rows, several = [], []
    with demonstration_bundle(arguments.bundle) as bundle:
        for model, variant in MODELS.items():
            clip = clipedge.load(bundle, variant=variant, backend="onnxruntime")
            examples = embedded(clip, "validation", 0, SHAPES + UNSEEN, FIT_SCENES)
            known = embedded(clip, "test", START, SHAPES, KNOWN_SCENES)
            unknown = embedded(clip, "test", START, UNSEEN, UNKNOWN_SCENES)
            parts = zip(vars(known).values(), vars(unknown).values(), strict=True)
            test = Pictures(*(np.concatenate(pair) for pair in parts))
            rows += [measure(model, bank, clip, examples, test) for bank in BANKS]
            several += several_labels(model, clip, examples, test)
    document = {
        "machine": describe_machine(),
        "known": len(CLASS_NAMES) * KNOWN_SCENES,
        "unknown": len(UNSEEN) * len(COLORS) * UNKNOWN_SCENES,
        "rows": [asdict(row) for row in rows],
        "several": [asdict(row) for row in several],
        "targets": judge(rows),
    }
    page = markdown(document, rows, several)
    publish("decisions", document, page)


if __name__ == "__main__":
    main()
