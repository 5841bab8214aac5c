"""The events of a stream by what has to hold for any answers at any times: drawn at random, without threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from clipedge.camera.presence import Event, EventRule, Presence, observe
from clipedge.decisions.rule import DecisionRule
from clipedge.errors import UsageError
from clipedge.prompts.bank import PromptBank

Floats = npt.NDArray[np.float64]
LABELS = ("cat", "dog", "bird")
SEEDS = range(25)


def random_rule(rng: np.random.Generator) -> EventRule:
    enter = rng.uniform(0.3, 0.9, len(LABELS))
    leave = enter * rng.uniform(0.3, 1, len(LABELS))
    seconds = rng.uniform(0, 0.6, 3) * rng.integers(0, 2, 3)  # each is 0 half of the time
    return EventRule(LABELS, tuple(enter), tuple(leave), *map(float, seconds))


def random_answers(rng: np.random.Generator, count: int = 150) -> list[tuple[float, Floats | None]]:
    """Irregular times; labels that come and go, with noise; and every third frame or so unchanged."""
    times = rng.uniform(-5, 5) + np.cumsum(rng.exponential(0.1, count) + 1e-4)
    there = np.cumsum(rng.random((count, len(LABELS))) < 0.06, axis=0) % 2
    noisy = np.clip(there * 0.8 + rng.normal(0.1, 0.25, there.shape), 0, 1)
    unchanged = rng.random(count) < 0.35
    unchanged[0] = False
    return [(float(t), None if same else p) for t, p, same in zip(times, noisy, unchanged, strict=True)]


def run(answers: Sequence[tuple[float, Floats | None]], rule: EventRule) -> tuple[list[Presence], list[Event]]:
    states: list[Presence] = []
    events: list[Event] = []
    for timestamp, probabilities in answers:
        state, new = observe(states[-1] if states else None, timestamp, probabilities, rule)
        states.append(state)
        events += new
    return states, events


@pytest.mark.parametrize("seed", SEEDS)
def test_smoothing_is_the_sum_of_all_answers_by_their_age(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rule = replace(random_rule(rng), time_constant=float(rng.uniform(0.05, 2)))
    answers = random_answers(rng)
    states, _ = run(answers, rule)
    times, values = [time for time, _ in answers], []
    for _, value in answers:
        values.append(values[-1] if value is None else value)
    # What lies between two frames has the later one's answer; what lies before the first frame, the first one's.
    ages = np.exp((np.array([-math.inf, *times]) - times[-1]) / rule.time_constant)
    expected = sum(value * share for value, share in zip(values, np.diff(ages), strict=True))
    np.testing.assert_allclose(states[-1].smoothed, expected, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_unchanged_frame_is_one_with_the_last_answer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rule, answers = random_rule(rng), random_answers(rng)
    told: list[tuple[float, Floats | None]] = []
    for time, value in answers:
        told.append((time, told[-1][1] if value is None else value))
    assert run(answers, rule)[1] == run(told, rule)[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_more_frames_of_the_same_answer_smooth_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rule, answers = random_rule(rng), random_answers(rng, 40)
    finer: list[tuple[float, Floats | None]] = [answers[0]]
    for (before, _), (time, value) in pairwise(answers):
        finer += [(float(t), value) for t in sorted(rng.uniform(before, time, 3)) if before < t < time]
        finer.append((time, value))
    coarse, fine = run(answers, rule)[0], run(finer, rule)[0]
    by_time = {state.timestamp: state for state in fine}
    if rule.time_constant:
        for state in coarse:
            np.testing.assert_allclose(by_time[state.timestamp].smoothed, state.smoothed, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_label_appears_and_leaves_in_turn_and_only_after_its_time_beyond_the_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rule = random_rule(rng)
    states, events = run(random_answers(rng), rule)
    assert events == sorted(events, key=lambda event: (event.timestamp, LABELS.index(event.label)))
    smoothed = {state.timestamp: state.smoothed for state in states}
    for index, label in enumerate(LABELS):
        mine = [event for event in events if event.label == label]
        for number, event in enumerate(mine):
            assert event.kind == ("left" if number % 2 else "appeared")
            assert event.probability == smoothed[event.timestamp][index]
            during = [value[index] for time, value in smoothed.items() if event.since <= time <= event.timestamp]
            if event.kind == "appeared":
                assert min(during) >= rule.enter[index]
            else:
                assert max(during) < rule.leave[index]
            patience = rule.enter_seconds if event.kind == "appeared" else rule.leave_seconds
            assert event.timestamp - event.since >= patience - 1e-5


@pytest.mark.parametrize("seed", SEEDS)
def test_no_event_is_missed(seed: int) -> None:
    """Between two events of a label there is no stretch beyond its threshold that lasts as long as it has to."""
    rng = np.random.default_rng(seed)
    rule = random_rule(rng)
    states, events = run(random_answers(rng), rule)
    for index, label in enumerate(LABELS):
        changes = {event.timestamp for event in events if event.label == label}
        present, start = False, None
        for state in states:
            value = state.smoothed[index]
            beyond = value < rule.leave[index] if present else value >= rule.enter[index]
            start = (state.timestamp if start is None else start) if beyond else None
            if state.timestamp in changes:
                present, start = not present, None
            elif start is not None:
                assert state.timestamp - start < (rule.leave_seconds if present else rule.enter_seconds)
            assert bool(state.present[index]) == present


@pytest.mark.parametrize("seed", SEEDS[:8])
def test_labels_do_not_meet_and_time_has_no_origin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rule, answers = random_rule(rng), random_answers(rng)
    events = run(answers, rule)[1]
    for index, label in enumerate(LABELS):
        alone = EventRule(
            (label,), rule.enter[index : index + 1], rule.leave[index : index + 1], rule.enter_seconds,
            rule.leave_seconds, rule.time_constant,
        )  # fmt: skip
        rows = [(time, None if value is None else value[index : index + 1]) for time, value in answers]
        assert run(rows, alone)[1] == [event for event in events if event.label == label]
    later = run([(time + 1024.0, value) for time, value in answers], rule)[1]
    assert [(event.kind, event.label) for event in later] == [(event.kind, event.label) for event in events]
    assert np.allclose([event.timestamp - 1024 for event in later], [event.timestamp for event in events])


def test_what_was_known_stays_what_it_was() -> None:
    rng = np.random.default_rng(0)
    rule, answers = random_rule(rng), random_answers(rng, 60)
    states, _ = run(answers[:-1], rule)
    before = replace(states[-1], smoothed=states[-1].smoothed.copy(), since=states[-1].since.copy())
    outcomes = [observe(states[-1], *answers[-1], rule) for _ in range(2)]
    np.testing.assert_array_equal(states[-1].smoothed, before.smoothed)
    np.testing.assert_array_equal(states[-1].since, before.since)
    assert outcomes[0][1] == outcomes[1][1]


def test_a_second_at_ten_frames_a_second() -> None:
    """By hand: unsmoothed, there from 0.2 on, gone from 1.0 on; 0.3 s to enter and 0.5 s to leave, exact at 0.1 s."""
    rule = EventRule(("cat",), (0.5,), (0.4,), 0.3, 0.5, 0.0)
    answers = [(i / 10, np.array([0.9 if 2 <= i < 10 else 0.1])) for i in range(20)]
    assert run(answers, rule)[1] == [
        Event("appeared", "cat", 0.5, 0.2, 0.9),
        Event("left", "cat", 1.5, 1.0, 0.1),
    ]


BANK = PromptBank(np.eye(3, 4, dtype=np.float32), LABELS, ("{}",), 10.0, 0.0, "softmax", "space")


def test_the_thresholds_are_the_callers_or_the_banks_or_a_half() -> None:
    fitted = replace(BANK, rule=DecisionRule(1.0, (0.2, 0.4, 0.6), False, "fp32"))
    unfitted = replace(BANK, rule=DecisionRule(1.0, (), False, "fp32"))
    for bank, enter in ((BANK, (0.5, 0.5, 0.5)), (unfitted, (0.5, 0.5, 0.5)), (fitted, (0.2, 0.4, 0.6))):
        rule = EventRule.for_bank(bank)
        assert (rule.labels, rule.enter) == (LABELS, enter)
        assert rule.leave == pytest.approx([0.7 * value for value in enter])
    chosen = EventRule.for_bank(fitted, enter=0.8, leave=[0.1, 0.2, 0.3], leave_seconds=2)
    assert chosen == EventRule(LABELS, (0.8, 0.8, 0.8), (0.1, 0.2, 0.3), 0.3, 2, 0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"enter": 1.5}, "enter: expected a probability from 0 to 1, found 1.5"),
        ({"leave": math.nan}, "leave: expected a probability"),
        ({"enter": [0.5, 0.5]}, "expected 3 thresholds, one a label, found 2"),
        ({"enter": 0.4, "leave": 0.5}, "found leave 0.5 above enter 0.4 for 'cat'"),
        ({"enter_seconds": -1.0}, "enter_seconds: expected seconds, 0 or more, found -1.0"),
        ({"leave_seconds": math.inf}, "leave_seconds: expected seconds"),
        ({"time_constant": math.nan}, "time_constant: expected seconds"),
    ],
)
def test_a_rule_that_cannot_be_right_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EventRule.for_bank(BANK, **wrong)  # type: ignore[arg-type]


def test_an_observation_that_cannot_be_right_is_refused() -> None:
    rule = EventRule.for_bank(BANK)
    with pytest.raises(UsageError, match="expected 3 probabilities, one a label, found none"):
        observe(None, 0.0, None, rule)
    with pytest.raises(UsageError, match=r"found an array of shape \(2,\)"):
        observe(None, 0.0, np.zeros(2), rule)
    state, _ = observe(None, 1.0, np.zeros(3), rule)
    for time in (1.0, 0.5, math.nan, math.inf):
        with pytest.raises(UsageError, match="timestamps are seconds that grow"):
            observe(state, time, np.zeros(3), rule)
