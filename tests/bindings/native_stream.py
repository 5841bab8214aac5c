"""Streams of libclipedge through ctypes, with no more than their header says, and streams that a test answers."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_int32, c_int64, c_size_t, c_uint8, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from building import SOURCES, run
from native import Native, NativeModel, image_of, sized
from numpy.typing import NDArray

from clipedge.camera.presence import Event, EventRule
from clipedge.camera.stream import Counts
from clipedge.images.frames import Frame

KINDS = ("none", "appeared", "left", "ended")
Floats = NDArray[np.float64]
Answers = Callable[[int], Sequence[float]]
AT_ONCE = EventRule(("0", "1"), (0.5, 0.5), (0.3, 0.3), 0.0, 0.0, 0.0)
TIMEOUT = 30  # seconds until a test that hangs has failed


class StreamOptions(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        *((name, c_double) for name in ("enter_seconds", "leave_seconds", "time_constant")),
        ("enter", POINTER(c_double)),
        ("leave", POINTER(c_double)),
        ("enter_count", c_size_t),
        ("leave_count", c_size_t),
    )


class CEvent(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("kind", c_int32),
        ("number", c_int32),
        ("label", c_char_p),
        *((name, c_double) for name in ("timestamp", "since", "probability")),
    )


class CCounts(ctypes.Structure):
    _fields_ = (("size", c_size_t), *((name, c_int64) for name in ("seen", "unchanged", "late", "answered")))


def options_of(rule: EventRule) -> StreamOptions:
    """The rule as the header has it."""
    enter, leave = ((c_double * len(values))(*values) for values in (rule.enter, rule.leave))
    times = {name: getattr(rule, name) for name in ("enter_seconds", "leave_seconds", "time_constant")}
    counts = {"enter_count": len(enter), "leave_count": len(leave)}
    pointers = {"enter": ctypes.cast(enter, POINTER(c_double)), "leave": ctypes.cast(leave, POINTER(c_double))}
    return sized(StreamOptions, **times, **pointers, **counts)  # type: ignore[no-any-return]


class NativeStream:
    """A stream of so many labels; ``keep`` lives as long as it does."""

    def __init__(self, native: Native, handle: c_void_p, labels: int, keep: object = None) -> None:
        self.native, self.handle, self.labels, self.keep = native, handle, labels, keep

    def call(self, name: str, *arguments: Any) -> None:
        self.native.call(f"stream_{name}", self.handle, *arguments)

    def push(self, frame: Frame, timestamp: float, wait: bool = False) -> None:
        self.call("push", byref(image_of(frame)), c_double(timestamp), c_int32(wait))

    def next(self, timeout: float = 0) -> Event | str:
        """An event, or the kind of what is none."""
        event = sized(CEvent)
        self.call("next", c_double(timeout), byref(event))
        kind = KINDS[event.kind]
        if kind not in ("appeared", "left"):
            assert event.label is None
            return kind
        return Event(kind, event.label.decode(), event.timestamp, event.since, event.probability)  # type: ignore[arg-type]

    def events(self) -> list[Event]:
        """All of a stream that is or will be closed."""
        found = []
        while isinstance(event := self.next(math.inf), Event):
            found.append(event)
        assert event == "ended"
        return found

    def close(self) -> None:
        self.call("close")

    def counts(self) -> Counts:
        counts = sized(CCounts)
        self.call("counts", byref(counts))
        return Counts(counts.seen, counts.unchanged, counts.late, counts.answered)

    def presence(self) -> tuple[float, Floats, NDArray[np.bool_]]:
        """The time, the smoothed probabilities, and which labels are present."""
        time, smoothed, present = c_double(), np.zeros(self.labels), np.zeros(self.labels, np.uint8)
        into = smoothed.ctypes.data_as(POINTER(c_double)), present.ctypes.data_as(POINTER(c_uint8))
        self.call("presence", byref(time), *into, c_size_t(self.labels))
        return time.value, smoothed, present.astype(bool)

    def free(self) -> None:
        self.native.library.clipedge_stream_free(self.handle)


def model_stream(model: NativeModel, bank: c_void_p, labels: int, rule: EventRule | None = None) -> NativeStream:
    """The library's own stream; without a rule, of the default options."""
    handle = c_void_p()
    options = None if rule is None else byref(options_of(rule))
    model.native.call("stream_create", model.handle, bank, options, byref(handle))
    return NativeStream(model.native, handle, labels)


def build_entry(built: Path, output: Path) -> Native:
    """The library's objects with stream_entry.cpp."""
    objects = sorted((built / "CMakeFiles").glob("clipedge*.dir/src/*.o"))
    wheel = built / "libonnxruntime.so.1"
    runtime = [wheel, f"-Wl,-rpath,{built}"] if wheel.exists() else ["-lonnxruntime"]
    flags = ["-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-pthread"]
    includes = [f"-I{SOURCES / 'include'}", f"-I{SOURCES / 'src'}"]
    run(["g++", *flags, *includes, Path(__file__).with_name("stream_entry.cpp"), *objects, *runtime, "-o", output])
    return Native(output)


def answered_stream(entry: Native, options: ctypes.Structure | None, answers: Answers, labels: int = 2) -> NativeStream:
    """A stream of the labels "0", "1" ... whose own thread asks ``answers`` for the first byte of a frame."""

    def answer(plane: Any, probabilities: Any) -> None:
        for label, probability in enumerate(answers(plane[0])):
            probabilities[label] = probability

    callback = ctypes.CFUNCTYPE(None, POINTER(c_uint8), POINTER(c_double))(answer)
    entry.library.clipedge_test_bank.restype = c_void_p
    bank, handle = c_void_p(entry.library.clipedge_test_bank(c_size_t(labels))), c_void_p()
    entry.call("test_stream", bank, None if options is None else byref(options), callback, byref(handle))
    return NativeStream(entry, handle, labels, (callback, bank))


class Colours:
    """Answers by a frame's first byte: the labels' shares of it. ``free`` lets answers through."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.busy, self.free = threading.Event(), threading.Event()
        self.free.set()

    def __call__(self, byte: int) -> tuple[float, float]:
        self.busy.set()
        assert self.free.wait(TIMEOUT)
        self.asked.append(byte)
        return byte / 255, 1 - byte / 255


def grey(value: int) -> Frame:
    return Frame.from_array(np.full((48, 64), value, np.uint8), "gray8")


def hold_up(colours: Colours, stream: NativeStream) -> None:
    """Until ``colours.free`` is set, a first frame keeps the stream's thread busy."""
    colours.free.clear()
    stream.push(grey(200), 0.0)
    assert colours.busy.wait(TIMEOUT)
