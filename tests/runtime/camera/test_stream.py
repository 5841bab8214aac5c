"""Stream: the thread around the core. A model of two colours stands in, which the tests can hold up and look into."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from clipedge.camera.presence import Event, EventRule, Presence, observe
from clipedge.camera.stream import Counts, Stream, answer
from clipedge.classify import Classifier
from clipedge.decisions.rule import DecisionRule
from clipedge.errors import ImageError, UsageError
from clipedge.images.frames import Frame, to_rgb
from clipedge.images.pixels import Images, as_list
from clipedge.prompts.bank import PromptBank

Pixels = npt.NDArray[np.uint8]
BANK = PromptBank(np.eye(2, 3, dtype=np.float32), ("red", "green"), ("{}",), 10.0, 0.0, "softmax", "space")
AT_ONCE = EventRule.for_bank(BANK, enter_seconds=0, leave_seconds=0, time_constant=0)
TIMEOUT = 30  # seconds until a test that hangs has failed


class Colours:
    """The mean colour of a picture as its embedding: red and green lie on the labels. ``free`` lets answers through."""

    def __init__(self) -> None:
        self.asked: list[Pixels] = []
        self.frames: list[Frame] = []
        self.busy = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def __call__(self, images: Images) -> npt.NDArray[np.float32]:
        [frame] = as_list(images)
        assert isinstance(frame, Frame)
        self.busy.set()
        assert self.free.wait(TIMEOUT)
        self.frames.append(frame)
        self.asked.append(to_rgb(frame))
        colour = self.asked[-1].reshape(-1, 3).mean(axis=0)
        return np.asarray(colour / np.linalg.norm(colour), np.float32)[None]


def picture(red: int, green: int) -> Pixels:
    array = np.zeros((48, 64, 3), np.uint8)
    array[..., 0], array[..., 1], array[..., 2] = red, green, 1
    return array


RED, GREEN = picture(200, 0), picture(0, 200)


@pytest.fixture
def model() -> Colours:
    return Colours()


def classifier(model: Callable[[Images], npt.NDArray[np.float32]]) -> Classifier:
    return Classifier(model, BANK)


def hold_up(model: Colours, stream: Stream) -> None:
    """Push a first frame and wait until the model has it, where it stays until ``free`` is set."""
    model.free.clear()
    stream.push(RED, 0.0)
    assert model.busy.wait(TIMEOUT)


@pytest.mark.parametrize("seed", range(6))
def test_a_stream_that_waits_gives_the_events_of_the_core(model: Colours, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rule = EventRule.for_bank(BANK, enter_seconds=0.2, leave_seconds=0.1, time_constant=0.15)
    frames = [(RED, GREEN, picture(90, 80))[i] for i in np.repeat(rng.integers(0, 3, 25), rng.integers(1, 6, 25))]
    times = list(map(float, np.cumsum(rng.uniform(0.01, 0.2, len(frames)))))
    state, expected = None, []
    for frame, time in zip(frames, times, strict=True):
        probabilities = answer(classifier(Colours()), Frame.from_array(frame, "rgb8"))
        state, events = observe(state, time, probabilities, rule)
        expected += events
    found: list[Event] = []
    known: list[Presence] = []
    with Stream(classifier(model), rule, on_event=found.append, on_answer=known.append) as stream:
        for frame, time in zip(frames, times, strict=True):
            stream.push(frame, time, wait=True)
    assert found == expected
    assert len(found) > 5
    changes = 1 + sum(not np.array_equal(a, b) for a, b in pairwise(frames))
    assert stream.counts == Counts(len(frames), len(frames) - changes, 0, changes)
    assert [presence.timestamp for presence in known] == times
    assert stream.presence is known[-1]


def test_a_slow_model_gets_the_newest_frame_and_no_queue(model: Colours) -> None:
    with Stream(classifier(model), AT_ONCE) as stream:
        hold_up(model, stream)
        for index in range(1, 50):
            stream.push(picture(100 * (index % 2) + index, 50), float(index))
        assert stream.counts == Counts(50, 0, 48, 0)
        model.free.set()
    assert [int(pixels[0, 0, 0]) for pixels in model.asked] == [200, 149]
    assert stream.counts == Counts(50, 0, 48, 2)
    assert stream.presence is not None
    assert stream.presence.timestamp == 49


def test_what_does_not_change_is_asked_once_and_still_takes_its_time(model: Colours) -> None:
    rule = replace(AT_ONCE, enter_seconds=1.0)
    with Stream(classifier(model), rule) as stream:
        for index in range(10):
            stream.push(RED, 0.2 * index)
    [event] = stream
    assert (event.kind, event.label, event.since) == ("appeared", "red", 0)
    assert event.timestamp == pytest.approx(1.0)
    assert stream.counts == Counts(10, 9, 0, 1)
    assert len(model.asked) == 1


def test_a_slow_drift_is_a_change_in_the_end(model: Colours) -> None:
    """Frames are compared with the last one that the model was to see, not with the one before."""
    with Stream(classifier(model), AT_ONCE) as stream:
        for index in range(60):
            stream.push(picture(200 - 2 * index, 0), float(index), wait=True)
    assert 10 < stream.counts.answered < 30


def test_frames_that_repeat_one_that_waits_wait_with_it_and_go_with_it(model: Colours) -> None:
    known: list[Presence] = []
    with Stream(classifier(model), AT_ONCE, on_answer=known.append) as stream:
        hold_up(model, stream)
        for time, frame in ((1.0, RED), (2.0, GREEN), (3.0, GREEN), (4.0, RED), (5.0, RED)):
            stream.push(frame, time)
        assert stream.counts == Counts(6, 3, 1, 0)
        model.free.set()
    assert [presence.timestamp for presence in known] == [0, 1, 4, 5]
    assert stream.counts == Counts(6, 3, 1, 2)


@pytest.mark.parametrize("kind", ["array", "frame", "view"])
def test_a_caller_may_use_its_memory_again_at_once(model: Colours, kind: str) -> None:
    memory = np.zeros((48, 128, 3), np.uint8)
    shown = memory[:, :64] if kind == "view" else memory
    with Stream(classifier(model), AT_ONCE) as stream:
        hold_up(model, stream)
        shown[:] = GREEN[0, 0]
        stream.push(Frame.from_bgr(shown) if kind == "frame" else shown, 1.0)
        memory[:] = 77
        model.free.set()
    expected = GREEN[0, 0, ::-1] if kind == "frame" else GREEN[0, 0]
    assert (model.asked[1] == expected).all()
    assert not np.shares_memory(model.frames[1].planes[0], memory)


def test_memory_that_is_given_away_or_cannot_change_is_not_copied(model: Colours) -> None:
    frozen = Frame((GREEN.tobytes(),), (192,), 64, 48, "rgb8")
    with Stream(classifier(model), AT_ONCE) as stream:
        stream.push(RED, 0.0, copy=False, wait=True)
        stream.push(frozen, 1.0, wait=True)
    assert np.shares_memory(np.asarray(model.frames[0].planes[0]), RED)
    assert model.frames[1].planes[0] is frozen.planes[0]


def test_the_events_can_be_read_by_another_thread(model: Colours) -> None:
    stream = Stream(classifier(model), AT_ONCE)

    def camera() -> None:
        with stream:
            for index in range(20):
                stream.push((RED, GREEN)[index // 5 % 2], float(index), wait=True)

    thread = threading.Thread(target=camera)
    thread.start()
    events = list(stream)
    thread.join(TIMEOUT)
    seen = [(event.kind, event.label, event.timestamp) for event in events]
    assert seen[:3] == [("appeared", "red", 0), ("left", "red", 5), ("appeared", "green", 5)]
    assert len(seen) == 7
    assert list(stream) == []


class BrokenModelError(Exception):
    pass


def broken(images: Images) -> npt.NDArray[np.float32]:
    raise BrokenModelError


def push_until_it_raises(stream: Stream) -> None:
    for index in range(10_000):
        stream.push((RED, GREEN)[index % 2], float(index), wait=True)


def test_what_ends_the_worker_reaches_the_caller() -> None:
    with pytest.raises(BrokenModelError), Stream(classifier(broken)) as stream:
        push_until_it_raises(stream)
    with pytest.raises(BrokenModelError), Stream(classifier(broken)) as stream:
        stream.push(RED, 0.0)  # and nothing afterwards
    stream = Stream(classifier(broken))
    stream.push(RED, 0.0)
    with pytest.raises(BrokenModelError):
        list(stream)
    stream.close()  # which has nothing new to tell


def test_so_does_what_a_callback_raises(model: Colours) -> None:
    def fail(_: object) -> None:
        raise BrokenModelError

    with pytest.raises(BrokenModelError), Stream(classifier(model), AT_ONCE, on_event=fail) as stream:
        push_until_it_raises(stream)
    with pytest.raises(BrokenModelError), Stream(classifier(model), AT_ONCE, on_answer=fail) as stream:
        push_until_it_raises(stream)


def test_a_callback_cannot_close_its_stream(model: Colours) -> None:
    stream = Stream(classifier(model), AT_ONCE, on_event=lambda event: stream.close())
    with pytest.raises(UsageError, match="a stream's callback cannot close it"), stream:
        stream.push(RED, 0.0)


def test_the_callers_own_exception_is_not_hidden_and_what_waits_is_left(model: Colours) -> None:
    with pytest.raises(KeyboardInterrupt), Stream(classifier(model), AT_ONCE) as stream:
        hold_up(model, stream)
        stream.push(GREEN, 1.0)
        threading.Timer(0.05, model.free.set).start()
        raise KeyboardInterrupt
    assert len(model.asked) == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "clipedge-stream"]


def test_the_bank_decides_by_what_it_has(model: Colours) -> None:
    """With negatives, or a rule: decision_proba; the third axis is what a negative lies on."""
    frame = Frame.from_array(picture(100, 0), "rgb8")
    negatives = np.array([[0.6, 0, 0.8]], np.float32)
    banks = {
        "predict_proba": BANK,
        "decision_proba": replace(BANK, negatives=("floor",), negative_embeds=negatives),
        "decision_proba ": replace(BANK, rule=DecisionRule(5.0, (0.3, 0.3), False, "fp32")),
    }
    for verb, bank in banks.items():
        one = Classifier(model, bank)
        np.testing.assert_array_equal(answer(one, frame), getattr(one, verb.strip())([frame])[0].astype(np.float64))
    assert answer(Classifier(model, banks["decision_proba"]), frame).sum() < 0.99


def test_a_wrong_call_says_so(model: Colours) -> None:
    with pytest.raises(UsageError, match=r"make it with EventRule\.for_bank"):
        Stream(classifier(model), replace(AT_ONCE, labels=("a", "b")))
    with Stream(classifier(model), AT_ONCE, on_event=print) as stream:
        with pytest.raises(UsageError, match="events go to its on_event"):
            next(iter(stream))
        with pytest.raises(UsageError, match=r"push\(frame, time.monotonic\(\)\)"):
            stream.push(RED)
        with pytest.raises(ImageError, match="takes a Frame or a uint8"):
            stream.push("frame.jpg", 0.0)  # type: ignore[arg-type]
        with pytest.raises(ImageError, match=r"a uint8 array of shape \(H, W, 3\)"):
            stream.push(RED[..., 0], 0.0)
        stream.push(Frame.from_bgr(RED, timestamp=2.0))
        for time in (2.0, 1.0, float("nan")):
            with pytest.raises(UsageError, match="timestamps are seconds that grow"):
                stream.push(GREEN, time)
        assert stream.counts.seen == 1
    with pytest.raises(UsageError, match="the stream is closed"):
        stream.push(RED, 3.0)
