"""``--precision auto``: of the variants that pass their proof, the one that is fastest on this device."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from clipedge.backends.cpu import has_half_products
from clipedge.errors import UsageError
from clipedge.export.choice import Candidate, Choice, fastest, in_turns
from clipedge.export.proof import latencies
from clipedge.export.variants import ProvenVariant
from clipedge.machine.processor import family
from clipedge.manifest import Precision
from clipedge.model import variant_name

__all__ = ["AUTO", "auto_precisions", "check_auto", "choose_fastest", "drop_files"]

AUTO = "auto"
ROUNDS = 5
EXACTNESS: tuple[Precision, ...] = ("fp32", "fp16", "int8")  # the most exact first


def check_auto(precisions: Sequence[str], targets: Sequence[str]) -> None:
    """Raises UsageError for auto among other precisions, and for a target that this device cannot measure."""
    if list(precisions) != [AUTO]:
        raise UsageError(f"--precision auto tries every precision itself; found it with {', '.join(precisions)}")
    here = family(platform.machine())
    if list(targets) != [here]:
        raise UsageError(
            f"--precision auto measures on this device, which is {here or platform.machine()}; found --target "
            f"{','.join(targets)}: run it on such a device, or name a precision"
        )


def auto_precisions() -> tuple[Precision, ...]:
    """What is tried here, the most exact first. A processor without products of float16 would only widen it."""
    return tuple(kind for kind in EXACTNESS if kind != "fp16" or has_half_products())


def choose_fastest(folder: Path, proven: Sequence[ProvenVariant]) -> tuple[ProvenVariant, Choice]:
    """Measure the variants that passed, in ``folder``, a bundle that holds them; at least one has to.

    Each measurement is a process of its own, which loads the bundle as a device would; the variants take turns, so that
    what else the machine does meets all alike. Raises BackendError if a measurement fails.
    """
    ordered = sorted(proven, key=lambda found: EXACTNESS.index(found.towers["image"].variant.precision))
    by_name = {variant_name(found.towers["image"].variant): found for found in ordered}
    engines = {name: found.towers["image"].engine.name for name, found in by_name.items()}

    def measure(name: str) -> float:
        return latencies("clipedge.bench", str(folder), name, engines[name])["image"]

    times = in_turns(measure, [name for name, found in by_name.items() if not found.failures], ROUNDS)
    candidates = tuple(
        Candidate(name, engines[name], times.get(name, ()), found.failures) for name, found in by_name.items()
    )
    chosen, reason = fastest(times)
    return by_name[chosen], Choice(chosen, reason, candidates)


def drop_files(folder: Path, chosen: ProvenVariant, proven: Sequence[ProvenVariant]) -> None:
    """Delete the graphs of every variant but the chosen one."""
    kept = {entry.path for tower in chosen.towers.values() for entry in tower.variant.files}
    for found in proven:
        for tower in found.towers.values():
            for entry in tower.variant.files:
                if entry.path not in kept:
                    (folder / entry.path).unlink(missing_ok=True)
