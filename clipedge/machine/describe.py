"""The machine in one record, for results that are to be compared."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from clipedge.machine.files import text_of
from clipedge.machine.jetson import Jetson, read_jetson
from clipedge.machine.memory import Memory, parse_meminfo
from clipedge.machine.processor import Processor, parse_cpuinfo

__all__ = ["Machine", "describe_machine"]


@dataclass(frozen=True)
class Machine:
    """``system`` is the operating system with its release; ``board`` the device tree's or the maker's name."""

    processor: Processor
    memory: Memory | None
    board: str | None
    jetson: Jetson | None
    system: str
    python: str


def describe_machine(root: Path = Path("/")) -> Machine:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        processor=parse_cpuinfo(text_of(root / "proc/cpuinfo") or "", platform.machine(), cores),
        memory=parse_meminfo(text_of(root / "proc/meminfo") or ""),
        board=text_of(root / "proc/device-tree/model") or text_of(root / "sys/class/dmi/id/product_name") or None,
        jetson=read_jetson(root),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )
