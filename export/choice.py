"""What ``--precision auto`` decided, and the rule by which it does."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Candidate", "Choice", "choice_lines", "fastest", "in_turns"]


@dataclass(frozen=True)
class Candidate:
    """A variant that was built. ``round_ms`` are the image tower's median latencies, one a round of the measurement.

    ``failures`` are the lines in which it stays below the gate; then it was not measured.
    """

    variant: str
    engine: str
    round_ms: tuple[float, ...]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """``candidates`` are in order of exactness; ``reason`` says why ``chosen`` is it."""

    chosen: str
    reason: str
    candidates: tuple[Candidate, ...]


def in_turns(measure: Callable[[str], float], names: Sequence[str], rounds: int) -> dict[str, tuple[float, ...]]:
    """What ``measure`` says of each name, round by round; every other round goes backwards."""
    found: dict[str, list[float]] = {name: [] for name in names}
    if len(names) > 1:  # a single one has nothing to be compared with
        for number in range(rounds):
            for name in names[:: -1 if number % 2 else 1]:
                found[name].append(measure(name))
    return {name: tuple(times) for name, times in found.items()}


def fastest(times: Mapping[str, Sequence[float]]) -> tuple[str, str]:
    """(the chosen one, why) of latencies by round; the names are in order of exactness, the most exact first.

    A less exact variant is taken for faster only if it was so in every round. Were the two equally fast, that would
    happen once in 2**5 times (sign test): less is a tie, and the more exact one stays.
    """
    names = list(times)
    chosen = names[0]
    ties: list[str] = []
    for name in names[1:]:
        if all(new < old for new, old in zip(times[name], times[chosen], strict=True)):
            chosen, ties = name, []
        else:
            ties.append(name)
    if len(names) == 1:
        return chosen, "it is the only one that passed its proof"
    if not ties:
        return chosen, "it was the fastest in every round"
    return (
        chosen,
        f"{' and '.join(ties)} {'was' if len(ties) == 1 else 'were'} not faster in every round, and less exact",
    )


def choice_lines(choice: Choice) -> list[str]:
    """For a terminal."""
    lines = [f"  auto: {choice.chosen}, since {choice.reason}"]
    for item in choice.candidates:
        if item.failures:
            lines.append(f"    {item.variant:10} below the gate: {'; '.join(item.failures)}")
        elif item.round_ms:
            median, low, high = statistics.median(item.round_ms), min(item.round_ms), max(item.round_ms)
            lines.append(
                f"    {item.variant:10} {median:.2f} ms a picture in {item.engine}, "
                f"{len(item.round_ms)} rounds from {low:.2f} to {high:.2f}"
            )
    return lines
