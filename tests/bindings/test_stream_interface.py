"""The C interface of streams: options and structs of older and newer clients, and what a wrong call is told."""

from __future__ import annotations

import ctypes
import math
from ctypes import byref, c_double, c_int32, c_size_t, c_void_p
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from native import IMAGE, UNSUPPORTED, USAGE, Native, NativeError, NativeModel, image_of, sized
from native_stream import AT_ONCE, CEvent, NativeStream, StreamOptions, answered_stream, grey, options_of

from clipedge.camera.presence import Event, EventRule, Presence, observe
from clipedge.images.frames import Frame


def test_a_wrong_call_says_so(stream: NativeStream) -> None:
    stream.push(grey(0), 2.0)
    for timestamp in (2.0, 1.0, math.nan, math.inf, -math.inf):
        with pytest.raises(NativeError, match=r"timestamps are seconds that grow .*, found .* after 2;"):
            stream.push(grey(0), timestamp)
    for frame, message in (
        (replace_raw(grey(0), width=0), "at least 1"),
        (replace_raw(grey(0), strides=(3,)), "stride"),
    ):
        with pytest.raises(NativeError, match=message) as error:
            stream.push(frame, 3.0)
        assert error.value.status == IMAGE
    for timeout in (-1.0, math.nan):
        with pytest.raises(NativeError, match="timeout: expected seconds"):
            stream.next(timeout)
    with pytest.raises(NativeError, match="wait is 0 or 1, found 2"):
        stream.call("push", byref(image_of(grey(0))), c_double(3.0), c_int32(2))
    with pytest.raises(NativeError, match="smoothed and present holds 1, expected 2"):
        stream.call("presence", None, (c_double * 1)(), None, c_size_t(1))
    assert stream.counts().seen == 1
    stream.close()
    with pytest.raises(NativeError, match="the stream is closed") as error:
        stream.push(grey(0), 3.0)
    assert error.value.status == USAGE


def replace_raw(frame: Frame, **values: Any) -> Frame:
    """The frame with values that its own checks would refuse."""
    for name, value in values.items():
        object.__setattr__(frame, name, value)
    return frame


class OldOptions(ctypes.Structure):
    """What a client has that was compiled when there was nothing behind ``enter_seconds``."""

    _fields_ = StreamOptions._fields_[:2]


class NewOptions(ctypes.Structure):
    """What a client of the future may have."""

    _fields_ = (*StreamOptions._fields_, ("later", c_double))


DEFAULTS = EventRule(("0", "1"), (0.5, 0.5), (0.7 * 0.5, 0.7 * 0.5), 0.3, 0.5, 0.5)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (None, DEFAULTS),
        (OldOptions(size=ctypes.sizeof(c_size_t)), DEFAULTS),
        (sized(OldOptions, enter_seconds=0.1), replace(DEFAULTS, enter_seconds=0.1)),
        (options_of(AT_ONCE), AT_ONCE),
        (
            sized(NewOptions, enter_seconds=0.2, leave_seconds=0.1, time_constant=0.3),
            replace(DEFAULTS, enter_seconds=0.2, leave_seconds=0.1, time_constant=0.3),
        ),
    ],
    ids=["none", "only a size", "older", "same", "newer"],
)
def test_options_of_any_client_are_taken(entry: Native, options: ctypes.Structure | None, rule: EventRule) -> None:
    stream = answered_stream(entry, options, lambda byte: (byte / 255, 0.2))
    known: Presence | None = None
    expected: list[Event] = []
    for index in range(80):
        byte = 255 if index // 20 % 2 == 0 else 0
        known, events = observe(known, index / 10, np.array([byte / 255, 0.2]), rule)
        expected += events
        stream.push(grey(byte), index / 10, wait=True)
    stream.close()
    assert stream.events() == expected
    assert len(expected) == 4
    stream.free()


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"enter": (1.5,)}, USAGE, "enter: expected a probability from 0 to 1, found 1.5"),
        ({"leave": (math.nan,)}, USAGE, "leave: expected a probability from 0 to 1, found nan"),
        ({"enter": (0.5, 0.5, 0.5)}, USAGE, "enter: expected one threshold, or 2, one a label, found 3"),
        ({"enter": (0.4,), "leave": (0.3, 0.5)}, USAGE, 'found leave 0.5 above enter 0.4 for "1"'),
        ({"enter_seconds": -1.0}, USAGE, "enter_seconds: expected seconds, 0 or more, found -1"),
        ({"leave_seconds": math.inf}, USAGE, "leave_seconds: expected seconds"),
        ({"time_constant": math.nan}, USAGE, "time_constant: expected seconds"),
        ({"enter_count": 1}, USAGE, "enter is NULL: give one"),
        ({"size": 0}, USAGE, "its size is 0"),
    ],
)
def test_options_that_cannot_be_right_are_refused(
    entry: Native, changes: dict[str, Any], status: int, message: str
) -> None:
    options = sized(StreamOptions)
    for name, value in changes.items():
        if isinstance(value, tuple):
            setattr(options, f"{name}_count", len(value))
            value = (c_double * len(value))(*value)
        setattr(options, name, value)
    with pytest.raises(NativeError, match=message) as error:
        answered_stream(entry, options, lambda byte: (0, 0))
    assert error.value.status == status


def test_what_is_not_known_is_refused(entry: Native) -> None:
    with pytest.raises(NativeError, match="does not know") as error:
        answered_stream(entry, sized(NewOptions, later=1.0), lambda byte: (0, 0))
    assert error.value.status == UNSUPPORTED


class OldEvent(ctypes.Structure):
    """An event before there was more than its kind and number."""

    _fields_ = CEvent._fields_[:3]


def test_the_event_of_an_older_client_gets_what_it_has_room_for(stream: NativeStream) -> None:
    stream.push(grey(0), 0.0)
    stream.push(grey(255), 1.0, wait=True)
    stream.close()
    event = (OldEvent * 2)(sized(OldEvent), OldEvent(7, 7, 7))
    with pytest.raises(NativeError, match="its size is 0"):
        stream.call("next", c_double(0), byref(OldEvent()))  # and no event is lost
    stream.call("next", c_double(0), event)
    assert (event[0].size, event[0].kind, event[0].number) == (ctypes.sizeof(OldEvent), 1, 1)
    assert (event[1].size, event[1].kind) == (7, 7)
    assert [(event.kind, event.label) for event in stream.events()] == [("appeared", "0"), ("left", "1")]


def test_null_pointers_are_refused(stream: NativeStream, native_fp32: NativeModel) -> None:
    library, model, bank = native_fp32.native, native_fp32.handle, native_fp32.bank("default").handle
    handle = c_void_p(1)
    calls: list[tuple[Any, ...]] = [
        ("stream_create", None, bank, None, byref(handle)),
        ("stream_create", model, None, None, byref(handle)),
        ("stream_create", model, bank, None, None),
        ("stream_push", None, byref(image_of(grey(0))), c_double(0), c_int32(0)),
        ("stream_push", stream.handle, None, c_double(0), c_int32(0)),
        ("stream_next", None, c_double(0), byref(sized(CEvent))),
        ("stream_next", stream.handle, c_double(0), None),
        ("stream_close", None),
        ("stream_counts", stream.handle, None),
        ("stream_presence", None, None, None, None, c_size_t(0)),
    ]
    for name, *arguments in calls:
        with pytest.raises(NativeError, match="is NULL: give one") as error:
            (stream.native if stream.handle in arguments else library).call(name, *arguments)
        assert error.value.status == USAGE
    assert handle.value is None
    library.library.clipedge_stream_free(None)
