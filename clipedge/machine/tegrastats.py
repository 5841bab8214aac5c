"""What ``tegrastats`` prints on a Jetson, one line for each interval, parsed.

The parts of a line are those of NVIDIA's Jetson Linux Developer Guide, "tegrastats Utility", and of lines that people
have shown (tests/runtime/machine/test_tegrastats.py has them, with where they were seen). The form has changed: rails
are ``NAME NOW/MEAN`` in mW up to JetPack 4, ``NAME NOWmW/MEANmW`` from JetPack 5, and with a third number, the maximum,
from JetPack 7. Some boards show the parts in another order, and leave parts out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["TegraStats", "parse_tegrastats"]

NO_SENSOR = -256  # degrees that a sensor without power reports
RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/\d+(?:mW)?(?:/\d+(?:mW)?)?(?=\s|$)")


@dataclass(frozen=True)
class TegraStats:
    """One line. ``cpu_mhz`` has the cores that are on; ``gpu_mhz`` the GPU's clusters. ``watts`` are by rail, now."""

    ram_used_mb: int
    ram_total_mb: int
    cpu_mhz: tuple[int, ...]
    cores_off: int
    gpu_percent: int | None
    gpu_mhz: tuple[int, ...]
    celsius: Mapping[str, float]
    watts: Mapping[str, float]


def parse_tegrastats(line: str) -> TegraStats | None:
    """None for what is no line of statistics: headers, warnings, half a line."""
    ram = re.search(r"\bRAM (\d+)/(\d+)MB", line)
    cpu = re.search(r"\bCPU \[([^\]]*)\](?:@(\d+))?", line)
    if ram is None or cpu is None:
        return None
    cores = [core.strip() for core in cpu.group(1).split(",")]
    clocks = [int(clock) for core in cores for clock in re.findall(r"%@(\d+)$", core)]
    gpu = re.search(r"\bGR3D_FREQ (?:(\d+)%)?(?:@\[?([\d,]+)\]?)?", line)
    celsius = {name: float(degrees) for name, degrees in re.findall(r"\b(\w+)@(-?[\d.]+)C\b", line)}
    return TegraStats(
        ram_used_mb=int(ram.group(1)),
        ram_total_mb=int(ram.group(2)),
        cpu_mhz=tuple(clocks or ([int(cpu.group(2))] if cpu.group(2) else [])),
        cores_off=cores.count("off"),
        gpu_percent=int(gpu.group(1)) if gpu and gpu.group(1) else None,
        gpu_mhz=tuple(int(clock) for clock in gpu.group(2).split(",")) if gpu and gpu.group(2) else (),
        celsius={name: degrees for name, degrees in celsius.items() if degrees != NO_SENSOR},
        watts={name: int(now) / 1e3 for name, now in RAIL.findall(line) if name != "NC"},
    )
