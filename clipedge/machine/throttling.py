"""Whether the machine was slowed down, by heat or for want of power.

Jetson: over-current and under-voltage events are counted in ``oc*_event_cnt`` of the hwmon device ``soctherm_oc``
(NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance"; Linux' tegra234-oc-event driver), and heat
raises the state of cooling devices that are called ``*-throttle-alert``. Intel: ``thermal_throttle/*_throttle_count``
(Linux' therm_throt driver). The files were read in tests only, on trees that have their form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipedge.machine.files import number_in, text_of

__all__ = ["Throttling", "read_throttling", "throttled_between"]


@dataclass(frozen=True)
class Throttling:
    """``events`` are counted since boot; ``alerts`` are states, above 0 while the machine is being slowed down."""

    events: Mapping[str, int]
    alerts: Mapping[str, int]


def read_throttling(root: Path = Path("/")) -> Throttling:
    """Whatever this machine counts; nothing where it does not, as in most virtual machines."""
    events = {}
    for path in sorted(root.glob("sys/class/hwmon/hwmon*/oc[0-9]*_event_cnt")):
        events[f"{text_of(path.parent / 'name') or path.parent.name} {path.name}"] = number_in(path)
    for path in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")):
        events[f"{path.parent.parent.name} {path.name}"] = number_in(path)
    alerts = {}
    for path in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind = text_of(path / "type") or ""
        if kind.endswith("-throttle-alert"):
            alerts[kind] = number_in(path / "cur_state")
    return Throttling(_known(events), _known(alerts))


def throttled_between(before: Throttling, after: Throttling) -> tuple[str, ...]:
    """A line for each sign that the machine was slowed down meanwhile: a counter that grew, an alert that is on."""
    grown = [
        f"{name} grew by {count - before.events[name]}"
        for name, count in after.events.items()
        if count > before.events.get(name, count)
    ]
    active = [name for name in after.alerts if max(after.alerts[name], before.alerts.get(name, 0)) > 0]
    return (*grown, *(f"{name} is on" for name in active))


def _known(found: Mapping[str, int | None]) -> dict[str, int]:
    return {name: number for name, number in found.items() if number is not None}
