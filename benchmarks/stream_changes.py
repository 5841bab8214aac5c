"""What a stream takes for a change: how ``clipedge.camera.changes.CHANGED`` was chosen, and what it costs.

    python benchmarks/stream_changes.py [--scenes 60] [--bundle DIR]

Frames of 320 x 240 of rendered scenes, one object each, in pairs: the same scene with what sensors, compression and
lamps do to it, which should count as unchanged; and a scene in which something happened, which should not. For each
kind of pair the table has the difference of the two glances and the share of pairs above the threshold. The second
table asks the demonstration model about both frames of all pairs, by their difference: how far a label's probability
moves (120 labels), and how often the best label becomes another one. The threshold was chosen on the split
"validation" (--split); the tables are of the split "test". The last table times a glance at a 1280 x 720 frame beside
the copy and the conversion that an unchanged frame is spared. Without --bundle the demonstration model is exported
first, to INT8. Writes results/stream_changes.md and .json beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from layout import RESULTS
from machine import describe_machine
from numpy.typing import NDArray
from PIL import Image

import clipedge
from clipedge.calibration.scenes import Scene, labelled_scene, render
from clipedge.camera.changes import CHANGED, difference, glance
from clipedge.images.frames import Frame, PixelFormat, to_rgb

Picture = NDArray[np.uint8]

START = 2000
WIDTH, HEIGHT = 320, 240
EDGES = (0.0, 2.0, 4.0, 6.0, CHANGED, 12.0, 20.0, np.inf)
ROUNDS = 51


def noisy(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    return np.asarray((picture + rng.normal(0, sigma, picture.shape)).round().clip(0, 255), np.uint8)


def compressed(picture: Picture, quality: int) -> Picture:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@lru_cache(maxsize=2)
def drawn(scene: Scene) -> Picture:
    return render(scene, WIDTH, HEIGHT).picture


def moved(scene: Scene, share: float, rng: np.random.Generator) -> Scene:
    """The object moved by a share of the frame's central square, in any direction."""
    angle, [item] = rng.uniform(0, 2 * np.pi), scene.objects
    return replace(scene, objects=(replace(item, x=item.x + share * np.cos(angle), y=item.y + share * np.sin(angle)),))


def brighter(scene: Scene, share: float) -> Scene:
    return replace(scene, light=replace(scene.light, gain=scene.light.gain * (1 + share)))


def resized(scene: Scene, size: float) -> Scene:
    """The object as large as a share of the frame's central square."""
    [item] = scene.objects
    return replace(scene, objects=(replace(item, size=size),))


def without_object(scene: Scene) -> Scene:
    return resized(scene, 1 / WIDTH)  # less than a pixel of it is left


Pair = tuple[Picture, Picture]
Pairs = Callable[[Scene, np.random.Generator], Pair]


def _noise(sigma: float, quality: int | None = None) -> Pairs:
    def pair(scene: Scene, rng: np.random.Generator) -> Pair:
        still = drawn(scene)
        first, second = noisy(still, sigma, rng), noisy(still, sigma, rng)
        return (first, second) if quality is None else (compressed(first, quality), compressed(second, quality))

    return pair


def _other(change: Callable[[Scene, np.random.Generator], Scene]) -> Pairs:
    """Two frames with a sensor's ordinary noise, the scene of the second changed."""

    def pair(scene: Scene, rng: np.random.Generator) -> Pair:
        return noisy(drawn(scene), 2, rng), noisy(drawn(change(scene, rng)), 2, rng)

    return pair


def _small_gone(size: float) -> Pairs:
    gone = _other(lambda scene, rng: without_object(scene))
    return lambda scene, rng: gone(resized(scene, size), rng)


STILL: dict[str, Pairs] = {
    "noise of 2": _noise(2),
    "noise of 4": _noise(4),
    "noise of 8": _noise(8),
    "noise of 4, JPEG of quality 90": _noise(4, 90),
    "noise of 4, JPEG of quality 60": _noise(4, 60),
    "light 1 % brighter": _other(lambda scene, rng: brighter(scene, 0.01)),
    "light 2 % brighter": _other(lambda scene, rng: brighter(scene, 0.02)),
}
EVENTS: dict[str, Pairs] = {
    "light 10 % brighter": _other(lambda scene, rng: brighter(scene, 0.1)),
    "object moved by 1 %": _other(lambda scene, rng: moved(scene, 0.01, rng)),
    "object moved by 2 %": _other(lambda scene, rng: moved(scene, 0.02, rng)),
    "object moved by 5 %": _other(lambda scene, rng: moved(scene, 0.05, rng)),
    "object moved by 10 %": _other(lambda scene, rng: moved(scene, 0.1, rng)),
    "object gone": _other(lambda scene, rng: without_object(scene)),
    "object of 6 % of the side gone": _small_gone(0.06),
    "object of 4 % of the side gone": _small_gone(0.04),
}


def measured_pairs(split: str, scenes: int) -> Iterator[tuple[str, float, Pair]]:
    """(kind, difference of the glances, the two frames)."""
    rng = np.random.default_rng(scenes)
    for index in range(scenes):
        scene, _ = labelled_scene(split, START + index)
        for kind, pairs in (STILL | EVENTS).items():
            first, second = pairs(scene, rng)
            found = difference(*(glance(Frame.from_array(picture, "rgb8")) for picture in (first, second)))
            yield kind, found, (first, second)


def summary(differences: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "still": kind in STILL,
            "median": statistics.median(values),
            "low": float(np.quantile(values, 0.01)),
            "high": float(np.quantile(values, 0.99)),
            "changed": 100 * float(np.mean(np.array(values) > CHANGED)),
        }
        for kind, values in differences.items()
    ]


def consequences(rows: list[tuple[float, float, bool]]) -> list[dict[str, Any]]:
    """By the difference: how far the most moved label's probability moves, and how often the best label changes."""
    found = []
    for low, high in itertools.pairwise(EDGES):
        inside = [(moves, other) for value, moves, other in rows if low <= value - 1e-9 < high or value == low == 0]
        if inside:
            moves = [move for move, _ in inside]
            found.append(
                {
                    "low": low,
                    "high": None if high == np.inf else high,
                    "pairs": len(inside),
                    "median": statistics.median(moves),
                    "p99": float(np.quantile(moves, 0.99)),
                    "other": 100 * float(np.mean([other for _, other in inside])),
                }
            )
    return found


def costs() -> list[dict[str, Any]]:
    """Medians in microseconds on a 1280 x 720 frame: a glance, the copy that a skipped frame spares, and to_rgb."""
    rng = np.random.default_rng(0)
    shapes: dict[PixelFormat, tuple[int, ...]] = {
        "bgr8": (720, 1280, 3),
        "yuyv": (720, 1280, 2),
        "nv12": (1080, 1280),
    }
    rows = []
    for format, shape in shapes.items():
        frame = Frame.from_array(rng.integers(0, 256, shape, np.uint8), format)
        work = {
            "glance": lambda frame=frame: glance(frame),
            "copy": lambda frame=frame: [bytes(plane) for plane in frame.planes],
            "to_rgb": lambda frame=frame: to_rgb(frame),
        }
        rows.append({"format": format, **{name: _median_us(function) for name, function in work.items()}})
    return rows


def _median_us(function: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return 1e6 * statistics.median(taken)


def measure(bundle: Path, split: str, scenes: int) -> dict[str, Any]:
    clip = clipedge.load(bundle)
    classifier = clip.classifier(clip.saved_bank("default"))
    differences: dict[str, list[float]] = {}
    rows = []
    for kind, value, pair in measured_pairs(split, scenes):
        differences.setdefault(kind, []).append(value)
        before, after = classifier.predict_proba(list(pair))
        rows.append((value, float(np.abs(after - before).max()), bool(before.argmax() != after.argmax())))
    return {
        "machine": describe_machine(),
        "split": split,
        "scenes": scenes,
        "threshold": CHANGED,
        "differences": summary(differences),
        "consequences": consequences(rows),
        "costs": costs(),
    }


def markdown(document: dict[str, Any]) -> str:
    machine, threshold = document["machine"], document["threshold"]
    lines = [
        "# What a stream takes for a change",
        "",
        f"{document['scenes']} rendered scenes of {WIDTH} x {HEIGHT}, two frames of each; what happened between them,",
        f"and the difference of their glances in byte values. Above {threshold:g} a frame is a new one, else it",
        "repeats the last answer.",
        f"{machine['cpu']}, {machine['date']}.",
        "",
        "| between the frames | median | 1 % to 99 % | taken for a change, % |",
        "|---|---:|---:|---:|",
        *(
            f"| {row['kind']} | {row['median']:.1f} | {row['low']:.1f} to {row['high']:.1f} | {row['changed']:.1f} |"
            for row in document["differences"]
        ),
        "",
        "How far the demonstration model's answers move between the two frames, for all of these pairs (120 labels):",
        "the label whose probability moves most, and the pairs whose best label is another one.",
        "",
        "| difference | pairs | moved, median | moved, 99 % | another best label, % |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {row['low']:g} to {'any' if row['high'] is None else format(row['high'], 'g')} | {row['pairs']} "
            f"| {row['median']:.3f} | {row['p99']:.3f} | {row['other']:.1f} |"
            for row in document["consequences"]
        ),
        "",
        "Microseconds for a 1280 x 720 frame, medians.",
        "",
        "| format | glance | copy | whole conversion to RGB |",
        "|---|---:|---:|---:|",
        *(
            f"| {row['format']} | {row['glance']:.0f} | {row['copy']:.0f} | {row['to_rgb']:.0f} |"
            for row in document["costs"]
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--split", default="test", help="of the scenes; only of test the results are kept")
    parser.add_argument("--bundle", type=Path, help="the demonstration model (default: export it)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = arguments.bundle or Path(scratch) / "demo"
        if arguments.bundle is None:
            from clipedge.export import export

            export(None, bundle, precision="int8")
        document = measure(bundle, arguments.split, arguments.scenes)
    page = markdown(document)
    if arguments.split == "test":
        (RESULTS / "stream_changes.md").write_text(page, encoding="utf-8")
        (RESULTS / "stream_changes.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(page, end="")


if __name__ == "__main__":
    main()
