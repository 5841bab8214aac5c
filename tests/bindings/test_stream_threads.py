"""Streams in libclipedge under load: what is late, whose memory is whose, who is told what, and when it ends."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from native import BACKEND, IMAGE, Native, NativeError, NativeModel
from native_stream import (
    AT_ONCE,
    TIMEOUT,
    Colours,
    NativeStream,
    answered_stream,
    grey,
    hold_up,
    model_stream,
    options_of,
)

from clipedge.camera.stream import Counts
from clipedge.images.frames import Frame


def test_a_slow_model_gets_the_newest_frame_and_no_queue(stream: NativeStream, colours: Colours) -> None:
    hold_up(colours, stream)
    for index in range(1, 50):
        stream.push(grey(100 * (index % 2) + index), float(index))
    assert stream.counts() == Counts(50, 0, 48, 0)
    colours.free.set()
    stream.close()
    assert colours.asked == [200, 149]
    assert stream.counts() == Counts(50, 0, 48, 2)
    assert stream.presence()[0] == 49


def test_frames_that_repeat_one_that_waits_wait_with_it_and_go_with_it(stream: NativeStream, colours: Colours) -> None:
    hold_up(colours, stream)
    for timestamp, value in ((1.0, 200), (2.0, 90), (3.0, 90), (4.0, 200), (5.0, 200)):
        stream.push(grey(value), timestamp)
    assert stream.counts() == Counts(6, 3, 1, 0)
    colours.free.set()
    stream.close()
    assert stream.presence()[0] == 5
    assert (stream.counts(), colours.asked) == (Counts(6, 3, 1, 2), [200, 200])


def test_a_caller_may_use_its_memory_again_at_once(stream: NativeStream, colours: Colours) -> None:
    hold_up(colours, stream)
    memory = np.full((480, 640), 90, np.uint8)
    stream.push(Frame.from_array(memory, "gray8"), 1.0)
    memory[:] = 5
    colours.free.set()
    stream.close()
    assert colours.asked == [200, 90]


def test_frames_of_any_size_share_the_memory_that_is_kept(stream: NativeStream, colours: Colours) -> None:
    """A sanitizer would see a byte beyond it; here the answers are those of the frames."""
    values = []
    for index, side in enumerate((8, 600, 3, 1000, 64)):
        values.append(20 + 40 * index)
        stream.push(Frame.from_array(np.full((side, side, 3), values[-1], np.uint8), "rgb8"), float(index), wait=True)
    stream.close()
    assert colours.asked == values


def in_thread(body: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(body()))
    thread.start()
    return thread, found


def test_another_thread_can_wait_for_the_events(stream: NativeStream) -> None:
    thread, found = in_thread(stream.events)
    for index in range(20):
        stream.push(grey((255, 0)[index // 5 % 2]), float(index), wait=True)
    stream.close()
    thread.join(TIMEOUT)
    seen = [(event.kind, event.label, event.timestamp) for event in found[0]]
    assert seen[:3] == [("appeared", "0", 0), ("left", "0", 5), ("appeared", "1", 5)]
    assert len(seen) == 7


def test_without_a_frame_there_is_nothing_to_tell(stream: NativeStream) -> None:
    assert stream.next() == "none"
    assert stream.next(0.01) == "none"
    timestamp, smoothed, present = stream.presence()
    assert math.isnan(timestamp) and not smoothed.any() and not present.any()
    assert stream.counts() == Counts()
    stream.close()
    stream.close()
    assert stream.next(math.inf) == "ended"


def test_a_stream_that_is_freed_leaves_what_waits(entry: Native, colours: Colours) -> None:
    made = answered_stream(entry, options_of(AT_ONCE), colours)
    hold_up(colours, made)
    made.push(grey(90), 1.0)
    threading.Timer(0.05, colours.free.set).start()
    made.free()
    assert colours.asked == [200]


def broken(byte: int) -> tuple[float, float]:
    return -1, 0


def test_what_ends_the_thread_reaches_every_caller(entry: Native) -> None:
    def push_until_it_fails(stream: NativeStream) -> None:
        for index in range(10_000):
            stream.push(grey(200 * (index % 2)), float(index), wait=True)

    def wait(stream: NativeStream) -> None:
        stream.push(grey(0), 0.0)
        stream.next(math.inf)

    def close(stream: NativeStream) -> None:
        stream.push(grey(0), 0.0)
        stream.close()

    for call in (push_until_it_fails, wait, close):
        stream = answered_stream(entry, options_of(AT_ONCE), broken)
        with pytest.raises(NativeError, match="the engine broke") as error:
            call(stream)
        assert error.value.status == BACKEND
        stream.close()  # which has nothing new to tell
        stream.free()


def test_a_frame_that_the_model_cannot_take_ends_the_stream(native_fp32: NativeModel) -> None:
    stream = model_stream(native_fp32, native_fp32.bank("default").handle, 120)
    stream.push(Frame.from_array(np.zeros((60_000, 1), np.uint8), "gray8"), 0.0)
    with pytest.raises(NativeError, match="cut out the part that matters first") as error:
        stream.next(math.inf)
    assert error.value.status == IMAGE
    stream.free()
