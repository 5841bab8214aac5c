"""Stream: a camera's frames go in at any rate, events come out at the model's.

    with clipedge.Stream(clip.classifier(bank), on_event=print) as stream:
        while camera.is_open():
            stream.push(camera.read(), time.monotonic())

``push`` glances at the frame (``changes.py``). One that shows nothing new is done with: it repeats the last answer. Any
other one waits for the worker, a thread that asks the model, and takes the place of one that still waits: the model
sees the newest frame, and never a queue. What the answers mean over time is ``presence.py``.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipedge.camera.changes import CHANGED, Glance, difference, glance
from clipedge.camera.presence import Event, EventRule, Presence, check_later, observe
from clipedge.classify import Classifier
from clipedge.errors import ImageError, UsageError
from clipedge.images.frames import Frame, Pixels

__all__ = ["Counts", "Stream", "answer"]


@dataclass(frozen=True)
class Counts:
    """Frames of a stream: all that were ``seen`` are one of the others, or still wait for the model."""

    seen: int = 0
    unchanged: int = 0  # showed what the last one did: the model was not asked
    late: int = 0  # a newer one came before the model was free
    answered: int = 0


class _Waiting(NamedTuple):
    """A frame for the worker; None is one that repeats the last answer."""

    timestamp: float
    frame: Frame | None


class Stream:
    """Events of a classifier's labels on a camera's frames. A context manager; call ``close`` otherwise.

    The answers are ``decision_proba`` of a bank with negatives or a fitted rule, else ``predict_proba``. Without either
    a softmax model's probabilities of all labels sum to 1, and one of them may be "there" whatever the camera sees.

    ``rule`` says when a label appeared and left, None is ``EventRule.for_bank(classifier.bank)``. Events come to
    ``on_event`` or, without it, to whoever iterates over the stream, which ends when the stream is closed.
    ``on_answer`` is told what is known after each frame that was answered or unchanged. Both are called by the worker,
    in the frames' order; the model waits meanwhile.

    An exception of the model or of a callback ends the worker. The next ``push``, ``close`` or step of the iteration
    raises it. What is present when the stream is closed has not left: no event says so.
    """

    def __init__(
        self,
        classifier: Classifier,
        rule: EventRule | None = None,
        *,
        on_event: Callable[[Event], object] | None = None,
        on_answer: Callable[[Presence], object] = lambda presence: None,
    ) -> None:
        self._rule = EventRule.for_bank(classifier.bank) if rule is None else rule
        if self._rule.labels != classifier.labels:
            raise UsageError(
                f"the rule is for {len(self._rule.labels)} labels other than the bank's {len(classifier.labels)}; "
                "make it with EventRule.for_bank(bank)"
            )
        self._classifier, self._on_event, self._on_answer = classifier, on_event, on_answer
        self._changed = threading.Condition()  # guards all that follows
        self._waiting: deque[_Waiting] = deque()
        self._events: deque[Event] = deque()
        self._counts = Counts()
        self._presence: Presence | None = None
        self._glance: Glance | None = None  # of the last frame that was not skipped
        self._last = -math.inf
        self._closing = self._ended = self._raised = False
        self._error: BaseException | None = None
        self._worker = threading.Thread(target=self._work, name="clipedge-stream", daemon=True)
        self._worker.start()

    @property
    def counts(self) -> Counts:
        """What happened to the frames so far."""
        with self._changed:
            return self._counts

    @property
    def presence(self) -> Presence | None:
        """What is known after the newest frame that was answered or unchanged; None before the first."""
        with self._changed:
            return self._presence

    def push(
        self, frame: Frame | Pixels, timestamp: float | None = None, *, copy: bool = True, wait: bool = False
    ) -> None:
        """Hand over a frame, or a uint8 (H, W, 3) **RGB** array, and the time in seconds when it was taken.

        Returns at once. A frame that the model will see is copied first, so that the caller can use its memory again;
        ``copy=False`` spares that for a frame that nobody changes any more (bytes never need one). ``timestamp=None``
        takes the frame's own. With ``wait`` it returns when no other frame waits, and none is ever late: for files.

        Raises UsageError for a time that is not later than the last frame's or for a stream that was closed,
        ImageError for what is no frame, and what ended the worker.
        """
        ours = not copy or (isinstance(frame, np.ndarray) and not frame.flags.c_contiguous)  # from_array copies those
        frame = _as_frame(frame)
        timestamp = _time_of(frame, timestamp)
        seen = glance(frame)
        with self._changed:
            self._check_open()
            while wait and any(item.frame is not None for item in self._waiting):
                self._changed.wait()
                self._check_open()
            check_later(timestamp, self._last)
            self._last = timestamp
            if self._glance is not None and difference(self._glance, seen) <= CHANGED:
                self._count(seen=1, unchanged=1)
                self._waiting.append(_Waiting(timestamp, None))
            else:
                self._count(seen=1, late=self._drop())
                self._waiting.append(_Waiting(timestamp, frame if ours else _copied(frame)))
                self._glance = seen
            self._changed.notify_all()

    def close(self) -> None:
        """Answer what still waits and end the worker. Raises what ended it before, unless ``push`` did already."""
        self._end(answer_waiting=True)
        if self._error is not None and not self._raised:
            self._raise()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._end(answer_waiting=False)

    def __iter__(self) -> Iterator[Event]:
        """The events as they come, until the stream is closed and every one was taken."""
        if self._on_event is not None:
            raise UsageError("this stream's events go to its on_event; make one without it to iterate over them")
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._events or self._ended)
                if not self._events and self._error is not None:
                    self._raise()
                if not self._events:
                    return
                event = self._events.popleft()
            yield event

    def _check_open(self) -> None:
        if self._error is not None:
            self._raise()
        if self._closing:
            raise UsageError("the stream is closed; make a new one for more frames")

    def _raise(self) -> None:
        self._raised = True
        assert self._error is not None
        raise self._error

    def _count(self, **more: int) -> None:
        self._counts = replace(self._counts, **{name: getattr(self._counts, name) + n for name, n in more.items()})

    def _drop(self) -> int:
        """Take the frame that waits out of the queue, and those that repeat it: how many were late, 0 or 1."""
        for index, item in enumerate(self._waiting):
            if item.frame is not None:
                while len(self._waiting) > index:
                    self._waiting.pop()
                return 1
        return 0

    def _end(self, answer_waiting: bool) -> None:
        if threading.current_thread() is self._worker:
            raise UsageError("a stream's callback cannot close it: raise an exception, which ends the stream")
        with self._changed:
            self._closing = True
            if not answer_waiting:
                self._waiting.clear()
            self._changed.notify_all()
        self._worker.join()

    def _work(self) -> None:
        try:
            while (item := self._next()) is not None:
                self._take(item)
        except BaseException as error:
            with self._changed:
                self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._waiting.clear()
                self._changed.notify_all()

    def _next(self) -> _Waiting | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            self._changed.notify_all()
            return item

    def _take(self, item: _Waiting) -> None:
        probabilities = None if item.frame is None else answer(self._classifier, item.frame)
        presence, events = observe(self._presence, item.timestamp, probabilities, self._rule)
        with self._changed:
            self._presence = presence
            if item.frame is not None:
                self._count(answered=1)
            if self._on_event is None:
                self._events.extend(events)
            self._changed.notify_all()
        self._on_answer(presence)
        if self._on_event is not None:
            for event in events:
                self._on_event(event)


def answer(classifier: Classifier, frame: Frame) -> npt.NDArray[np.float64]:
    """(labels,) probabilities of one frame, as the bank decides if it has what decisions need."""
    bank = classifier.bank
    decides = bank.rule is not None or bool(bank.negatives)
    return np.asarray((classifier.decision_proba if decides else classifier.predict_proba)([frame])[0], np.float64)


def _as_frame(frame: Frame | Pixels) -> Frame:
    if isinstance(frame, Frame):
        return frame
    if isinstance(frame, np.ndarray):
        return Frame.from_array(frame, "rgb8")
    raise ImageError(
        f"a stream takes a Frame or a uint8 (H, W, 3) RGB array, found {type(frame).__name__}; "
        "np.asarray(clipedge.images.pixels.open_rgb(picture)) makes an array of a picture"
    )


def _time_of(frame: Frame, timestamp: float | None) -> float:
    time = frame.timestamp if timestamp is None else timestamp
    if time is None:
        raise UsageError("expected the time when the frame was taken, found none; push(frame, time.monotonic())")
    return float(time)


def _copied(frame: Frame) -> Frame:
    """The frame in memory of its own; bytes cannot change and stay."""
    return replace(frame, planes=tuple(plane if isinstance(plane, bytes) else bytes(plane) for plane in frame.planes))
