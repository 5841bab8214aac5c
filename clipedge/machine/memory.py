"""Memory, of the machine and of this process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from clipedge.machine.files import text_of

__all__ = ["Memory", "parse_meminfo", "peak_memory_mb"]


@dataclass(frozen=True)
class Memory:
    """In MB of 10**6 bytes; ``available`` is what Linux believes can be used without swapping."""

    total_mb: float
    available_mb: float
    swap_mb: float


def parse_meminfo(text: str) -> Memory | None:
    """Of ``/proc/meminfo``, whose kB are 1024 bytes; None if it does not say."""
    found = {
        name: int(kilobytes) * 1.024e-3 for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)
    }
    if not {"MemTotal", "MemAvailable"} <= found.keys():
        return None
    return Memory(found["MemTotal"], found["MemAvailable"], found.get("SwapTotal", 0.0))


def peak_memory_mb(root: Path = Path("/")) -> float | None:
    """The most memory that this process has had resident (VmHWM of ``/proc/self/status``); None if that is not told.

    (``getrusage`` says as much, but begins with what the parent process had.)
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB", text_of(root / "proc/self/status") or "", re.MULTILINE)
    return int(found.group(1)) * 1.024e-3 if found else None
