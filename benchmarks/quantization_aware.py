"""What quantization-aware finishing brings back of what INT8 loses: a small student, zero-shot on rendered scenes.

    python benchmarks/quantization_aware.py [--scenes 4000] [--finish 200] [--work DIR]

The student has four blocks at half the demonstration model's width, cut out of it and distilled here, briefly. Its
twins (clipedge.export.demo.outliers) compute the same function with channels and a neuron that are larger, as trained
CLIP towers have them. Each is quantized as plain kernels take it, one scale for a whole weight and no
smoothing (with our own range search and bias correction); the same is finished; and, since nobody has to do without, as
we do by default, one scale for each output channel and smoothing. The image tower is in INT8 for x86 on ONNX Runtime,
labels come from the float text tower. Calibration and finishing see the same scenes of the split "calibration";
accuracies are on scenes of the split "test", all forms on the same ones, so that differences are paired. What was
recovered is a share of what was lost, with a bootstrap interval over the scenes. Writes results/quantization_aware.md
and .json beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from layout import BUILD
from machine import describe_machine
from pairs import BATCH, label_embeds, rendered_scenes
from publish import publish, target_lines

from clipedge.calibration.data import scene_pictures
from clipedge.evaluation.intervals import accuracy, in_percent, in_points, paired_difference
from clipedge.selftest import centred_cosines

STUDENT = "inherit:layers=4,width=64,heads=2"
FACTORS = (1, 10, 20)  # of the outliers; 1: none
FLOAT, PLAIN, FINISHED, DEFAULT = "float32", "INT8, plain", "INT8, plain, finished", "INT8, default"
LOST, RECOVERED = 2.0, 0.5  # points from which a loss counts, and the share of it that has to come back
RESAMPLES = 2000
Rights = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    scenes: int
    finish: int
    calibration: int
    steps: int
    training_scenes: int


@dataclass(frozen=True)
class Row:
    """One form of one model. Accuracies in percent, [95 % interval]; points against float32."""

    model: str
    form: str
    accuracy: str
    points: str
    median_centred_cosine: float
    seconds: float | None
    extra_mb: float | None


def train_student(work: Path, settings: Settings) -> Path:
    """The student's folder; what is there already is not trained again."""
    from clipedge.export.distillation import Recipe, distill

    folder = work / f"student-{settings.steps}-{settings.training_scenes}"
    if not (folder / "config.json").is_file():
        recipe = Recipe(steps=settings.steps, batch_size=64, validate_every=max(settings.steps // 4, 1))
        distill(None, STUDENT, f"scenes:{settings.training_scenes}", folder, recipe=recipe)
    return folder


def unseen_scenes(work: Path, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Pictures (count, 64, 64, 3) and their classes, rendered once; the pictures stay on disk."""
    pixels, truth = (work / f"test-{count}-{name}.npy" for name in ("pixels", "truth"))
    if not truth.is_file():
        parts = zip(*rendered_scenes(count), strict=True)
        for path, part in zip((pixels, truth), parts, strict=True):
            np.save(path, np.concatenate(part))
    return np.load(pixels, mmap_mode="r"), np.load(truth)


def encoders(
    checkpoint: Path, scratch: Path, settings: Settings
) -> Iterator[tuple[str, Any, float | None, float | None]]:
    """(form, function from pixels to embeddings, seconds, MB) of a checkpoint's image tower in every form; the latter
    two are what finishing took."""
    from clipedge.backends import open_engine
    from clipedge.calibration.calibrate import Calibration, calibrate, observe_layers
    from clipedge.calibration.quantize import quantize
    from clipedge.calibration.rounding import SCHEMES, Scheme
    from clipedge.export.checkpoints import load_checkpoint
    from clipedge.export.convert import float_graph, save_variant
    from clipedge.export.finishing import finish
    from clipedge.export.proof import source_encoder
    from clipedge.export.sources import image_source
    from clipedge.export.streams import PixelStream

    loaded = load_checkpoint(checkpoint)
    pictures = scene_pictures("calibration", settings.calibration, loaded.preprocessing.height)
    stream = PixelStream(pictures, loaded.preprocessing, "calibrating")
    source = image_source(loaded, stream, stream)
    graph = float_graph(source, scratch)
    observed = observe_layers(graph, source.calibration, source.weigh)
    default = SCHEMES["x86"]
    plain = replace(default, per_channel=False)

    def written(form: str, calibration: Calibration, scheme: Scheme) -> Any:
        path = scratch / f"{checkpoint.name}-{form.replace(', ', '-')}.onnx"
        variant = save_variant(source, quantize(graph, calibration, scheme, source.pixel_mean), path, "int8", "x86")
        return open_engine(path, variant, "onnxruntime")

    yield FLOAT, source_encoder(source.module), None, None
    coarse = calibrate(graph, observed, plain, smoothing=False)
    yield PLAIN, written(PLAIN, coarse, plain), None, None
    before, started = _peak_mb(), time.process_time()
    finished = finish(source, graph, coarse, plain, settings.finish)
    seconds, extra = time.process_time() - started, _peak_mb() - before
    yield FINISHED, written(FINISHED, finished, plain), seconds, extra
    yield DEFAULT, written(DEFAULT, calibrate(graph, observed, default), default), None, None


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def examine(student: Path, factor: int, settings: Settings, work: Path) -> tuple[list[Row], dict[str, Rights]]:
    """The rows of a student's twin, and which scenes each form classifies rightly.

    Runs in a process of its own, so that its peak of memory is its own.
    """
    from clipedge.export.checkpoints import load_checkpoint
    from clipedge.export.demo.outliers import write_outlier_twin
    from clipedge.export.source_texts import SourceTexts

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = student if factor == 1 else write_outlier_twin(student, scratch / f"twin-{factor}", factor)
        forms = list(encoders(model, scratch, settings))
        labels = label_embeds(SourceTexts(load_checkpoint(model)).encode)
        pixels, truth = unseen_scenes(work, settings.scenes)
        batches = [np.array(part) for part in np.array_split(pixels, -(-len(pixels) // BATCH))]
        embeds = {form: np.concatenate([encode(batch) for batch in batches]) for form, encode, *_ in forms}
    rights = {form: (images @ labels.T).argmax(axis=1) == truth for form, images in embeds.items()}
    source = embeds[FLOAT]
    name = "student" if factor == 1 else f"student, outliers x {factor}"
    return [
        Row(
            model=name,
            form=form,
            accuracy=in_percent(accuracy(rights[form])),
            points=in_points(paired_difference(rights[form], rights[FLOAT])),
            median_centred_cosine=float(np.median(centred_cosines(source, embeds[form], source.mean(axis=0)))),
            seconds=seconds,
            extra_mb=extra,
        )
        for form, _, seconds, extra in forms
    ], rights


def recovered(rights: dict[str, Rights]) -> tuple[float, tuple[float, float]]:
    """The share of the lost accuracy that finishing brought back, and its 95 % interval: percentiles over resampled
    scenes (Efron 1979, "Bootstrap methods")."""
    answers = np.stack([rights[form] for form in (FLOAT, PLAIN, FINISHED)]).astype(np.float64)
    cells, counts = np.unique(answers.T, axis=0, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(counts.sum(), counts / counts.sum(), RESAMPLES)

    def share(weights: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        exact, plain, finished = (weights @ cells).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((finished - plain) / (exact - plain))

    low, high = np.nanpercentile(share(drawn), [2.5, 97.5])
    return float(share(counts[None])[0]), (float(low), float(high))


def judge(found: dict[str, dict[str, Rights]]) -> list[dict[str, Any]]:
    """The acceptance, for each model where INT8 loses enough."""
    targets = []
    for model, rights in found.items():
        lost = 100 * (rights[FLOAT].mean() - rights[PLAIN].mean())
        if lost < LOST:
            continue
        share, (low, high) = recovered(rights)
        text = f"{model}: finishing recovers at least {RECOVERED:.0%} of {lost:.2f} points"
        targets.append({"text": text, "found": f"{share:.0%} [{low:.0%}, {high:.0%}]", "met": share >= RECOVERED})
    if not targets:
        text = f"a model that loses {LOST:g} points or more in plain INT8"
        targets.append({"text": text, "found": "none", "met": False})
    return targets


def markdown(document: dict[str, Any]) -> str:
    """The table, and what of the acceptance is met."""
    machine, settings = document["machine"], document["settings"]
    lines = [
        "# Quantization-aware finishing",
        "",
        f"A student of four blocks ({document['student']}, {settings['steps']} steps on",
        f"{settings['training_scenes']:,} scenes) and twins of it with outliers. Plain: one scale for a whole weight,",
        f"no smoothing. Finished: plain, trained for {settings['finish']} steps on the {settings['calibration']:,}",
        "calibration scenes. Default: one scale for each output channel, and smoothing. Zero-shot top-1 over 120",
        f"classes on {settings['scenes']:,} unseen scenes, percent, and the paired difference to float32 in points",
        "[95 % intervals]. Seconds are of CPU time; memory is what the process's peak grew by.",
        f"{machine['cpu']}, {machine['cores']} cores, {document['threads']} of them torch's, "
        f"VNNI: {'yes' if machine['vnni'] else 'no'}; {machine['date']}.",
        "",
        "| model | form | top-1 | to float32 | median centred cosine | finishing, s | its memory, MB |",
        "|---|---|---:|---:|---:|---:|---:|",
        *(_cells(row) for row in document["rows"]),
        "",
        *target_lines(document["targets"]),
    ]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> str:
    took = ["" if row[name] is None else f"{row[name]:.0f}" for name in ("seconds", "extra_mb")]
    points = "" if row["form"] == FLOAT else row["points"]
    return (
        f"| {row['model']} | {row['form']} | {row['accuracy']} | {points} | {row['median_centred_cosine']:.4f} "
        f"| {took[0]} | {took[1]} |"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=4000, help="of the test (default 4000)")
    parser.add_argument("--finish", type=int, default=200, help="steps of finishing (default 200)")
    parser.add_argument("--calibration", type=int, default=512, help="scenes that calibrate and finish (default 512)")
    parser.add_argument("--steps", type=int, default=300, help="of the student's training (default 300)")
    parser.add_argument("--training-scenes", type=int, default=3000, help="(default 3000)")
    parser.add_argument("--work", type=Path, default=BUILD / "quantization-aware", help="where the student is kept")
    arguments = vars(parser.parse_args())
    work = arguments.pop("work")
    settings = Settings(**arguments)
    work.mkdir(parents=True, exist_ok=True)
    student = train_student(work, settings)
    unseen_scenes(work, settings.scenes)
    rows, rights = [], {}
    for factor in FACTORS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            of_model, found = pool.submit(examine, student, factor, settings, work).result()
        rows += of_model
        rights[of_model[0].model] = found
    document = {
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "settings": asdict(settings),
        "student": STUDENT,
        "rows": [asdict(row) for row in rows],
        "targets": judge(rights),
    }
    publish("quantization_aware", document, markdown(document))


if __name__ == "__main__":
    main()
