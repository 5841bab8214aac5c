"""Streams in libclipedge against the Python package's: which frames changed, the smoothed numbers, the events."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native import Native, NativeModel
from native_stream import AT_ONCE, TIMEOUT, Floats, NativeStream, answered_stream, grey, model_stream, options_of
from numpy.typing import NDArray

import clipedge
from clipedge.calibration.scenes import CLASS_NAMES
from clipedge.camera.changes import CHANGED, difference, glance
from clipedge.camera.presence import Event, EventRule, Presence, observe
from clipedge.camera.stream import Counts, Stream
from clipedge.decisions.rule import DecisionRule
from clipedge.images.frames import Frame, PixelFormat

LABELS = ("0", "1", "2")
FORMATS: tuple[PixelFormat, ...] = ("rgb8", "bgr8", "rgba8", "bgra8", "gray8", "nv12", "i420", "yuyv", "uyvy")


def shape_of(format: PixelFormat, width: int, height: int) -> list[tuple[int, int]]:
    """(rows, bytes a row) of each plane."""
    w2, h2 = (width + 1) // 2, (height + 1) // 2
    if format == "nv12":
        return [(height, width), (h2, 2 * w2)]
    if format == "i420":
        return [(height, width), (h2, w2), (h2, w2)]
    if format in ("yuyv", "uyvy"):
        return [(height, 4 * w2)]
    return [(height, width * {"gray8": 1, "rgb8": 3, "bgr8": 3}.get(format, 4))]


def wavering_frames(format: PixelFormat, rng: np.random.Generator) -> Iterator[Frame]:
    """Frames of a few odd sizes with odd strides, whose cells differ by about what makes another picture."""
    for _ in range(3):
        width, height = map(int, rng.integers(1, 150, 2))
        layout = shape_of(format, width, height)
        base = [rng.integers(60, 150, shape, np.uint8) for shape in layout]
        padding = [int(number) for number in rng.integers(0, 7, len(layout))]
        for _ in range(20):
            step = int(rng.choice([-9, -8, -7, 0, 7, 8, 9]))
            planes = []
            for plane, more in zip(base, padding, strict=True):
                moved = np.asarray(plane.astype(int) + step + (rng.random(plane.shape) < 0.02), np.uint8)
                planes.append(np.pad(moved, ((0, 0), (0, more)), constant_values=int(rng.integers(256))).reshape(-1))
            strides = tuple(bytes + more for (_, bytes), more in zip(layout, padding, strict=True))
            yield Frame(tuple(planes), strides, width, height, format)


@pytest.mark.parametrize("format", FORMATS)
def test_the_frames_that_changed_are_those_of_python(entry: Native, format: PixelFormat) -> None:
    stream = answered_stream(entry, options_of(AT_ONCE), lambda byte: (0.1, 0.1))
    last, expected, found = None, [], []
    for number, frame in enumerate(wavering_frames(format, np.random.default_rng(FORMATS.index(format)))):
        seen, before = glance(frame), stream.counts().unchanged
        expected.append(last is not None and difference(last, seen) <= CHANGED)
        last = last if expected[-1] else seen
        stream.push(frame, float(number))
        found.append(stream.counts().unchanged > before)
    stream.free()
    assert found == expected
    assert 10 < sum(found) < 50


def random_rule(rng: np.random.Generator) -> EventRule:
    enter = rng.uniform(0.3, 0.9, len(LABELS))
    leave = enter * rng.uniform(0.3, 1, len(LABELS))
    seconds = rng.uniform(0, 0.6, 3) * rng.integers(0, 2, 3)  # each is 0 half of the time
    return EventRule(LABELS, tuple(enter), tuple(leave), *map(float, seconds))


def random_answers(rng: np.random.Generator, count: int = 120) -> list[tuple[float, Floats | None]]:
    """Irregular times; labels that come and go, with noise; and every third frame or so unchanged."""
    times = rng.uniform(-5, 5) + np.cumsum(rng.exponential(0.1, count) + 1e-4)
    there = np.cumsum(rng.random((count, len(LABELS))) < 0.06, axis=0) % 2
    noisy = np.clip(there * 0.8 + rng.normal(0.1, 0.25, there.shape), 0, 1)
    unchanged = rng.random(count) < 0.35
    unchanged[0] = False
    return [(float(t), None if same else p) for t, p, same in zip(times, noisy, unchanged, strict=True)]


def settled(stream: NativeStream, timestamp: float) -> tuple[Floats, NDArray[np.bool_]]:
    """What is known once the frame of this time was answered."""
    deadline = time.monotonic() + TIMEOUT
    while (known := stream.presence())[0] != timestamp:
        assert time.monotonic() < deadline
    return known[1], known[2]


@pytest.mark.parametrize("seed", range(25))
def test_random_answers_give_the_numbers_and_events_of_python(entry: Native, seed: int) -> None:
    """To the last bit: both compute in double, in the same order."""
    rng = np.random.default_rng(seed)
    rule, answers = random_rule(rng), random_answers(rng)
    told: queue.SimpleQueue[Floats] = queue.SimpleQueue()
    stream = answered_stream(entry, options_of(rule), lambda byte: list(told.get()), len(LABELS))
    known: Presence | None = None
    expected: list[Event] = []
    shade = 0
    for timestamp, probabilities in answers:
        known, events = observe(known, timestamp, probabilities, rule)
        expected += events
        if probabilities is not None:
            shade = 200 - shade
            told.put(probabilities)
        stream.push(grey(shade), timestamp)
        smoothed, present = settled(stream, timestamp)
        np.testing.assert_array_equal(smoothed, known.smoothed)
        np.testing.assert_array_equal(present, known.present)
    stream.close()
    assert stream.events() == expected
    asked = sum(probabilities is not None for _, probabilities in answers)
    assert stream.counts() == Counts(len(answers), len(answers) - asked, 0, asked)
    stream.free()


BANKS: dict[str, dict[str, Any]] = {
    "plain": {"negatives": (), "negative_embeds": None},
    "negatives": {},
    "sigmoid": {"negatives": (), "negative_embeds": None, "activation": "sigmoid", "logit_bias": -12.0},
    "one label": {"rule": DecisionRule(0.6, (0.2, 0.5, 0.9), False, "fp32")},
    "several labels": {"rule": DecisionRule(2.0, (0.2, 0.5, 0.9), True, "fp32", floor=12.0)},
}


@pytest.mark.parametrize("kind", BANKS)
def test_a_model_on_random_frames_gives_the_events_of_python(
    native_fp32: NativeModel, clip_fp32: clipedge.Clip, pictures: list[NDArray[np.uint8]], tmp_path: Path, kind: str
) -> None:
    bank = replace(clip_fp32.prompt_bank(CLASS_NAMES[0:9:3], negatives=["a wall"]), **BANKS[kind])
    bank.save(tmp_path / "bank.safetensors")
    rng = np.random.default_rng(list(BANKS).index(kind))
    shown = np.repeat(rng.integers(0, 6, 30), rng.integers(1, 12, 30))  # the labels' pictures, and others
    times = np.cumsum(rng.uniform(0.02, 0.3, len(shown)))
    frames = [Frame.from_array(pictures[number], "rgb8") for number in shown]
    rule = None if kind == "several labels" else EventRule.for_bank(bank, enter=0.4, leave=0.3, enter_seconds=0.1)

    expected: list[Event] = []
    with Stream(clip_fp32.classifier(bank), rule, on_event=expected.append) as python:
        for frame, timestamp in zip(frames, times, strict=True):
            python.push(frame, float(timestamp), wait=True)
    native_bank = native_fp32.bank_at(tmp_path / "bank.safetensors")
    stream = model_stream(native_fp32, native_bank.handle, 3, rule)
    for frame, timestamp in zip(frames, times, strict=True):
        stream.push(frame, float(timestamp), wait=True)
    stream.close()
    found = stream.events()
    assert [replace(event, probability=0) for event in found] == [replace(event, probability=0) for event in expected]
    assert [event.probability for event in found] == pytest.approx([event.probability for event in expected], abs=1e-5)
    assert len(found) > 3
    assert python.presence is not None
    timestamp, smoothed, present = stream.presence()
    np.testing.assert_allclose(smoothed, python.presence.smoothed, rtol=0, atol=1e-5)
    assert (timestamp, present.tolist()) == (python.presence.timestamp, python.presence.present.tolist())
    assert stream.counts() == python.counts
    stream.free()
