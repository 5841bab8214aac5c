"""A description of this machine, for the results. Standard library only."""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path
from typing import Any


def cpu_flags() -> frozenset[str]:
    """The instruction sets of an x86 (``flags``) or ARM (``Features``) processor; empty where Linux does not tell."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", _cpuinfo(), re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


def describe_machine() -> dict[str, Any]:
    """Processor, cores, instruction sets that matter here, memory, system and date."""
    model = re.search(r"^model name\s*:\s*(.*)$", _cpuinfo(), re.MULTILINE)
    flags = cpu_flags()
    return {
        "cpu": model.group(1) if model else platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9),
        "vnni": bool(flags & {"avx512_vnni", "avx_vnni"}),
        "instruction_sets": sorted(
            flags & {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
        ),
        "system": platform.system(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""
