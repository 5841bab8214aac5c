"""How fast processor and GPU are clocked, and how fast they may be."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clipedge.machine.files import number_in, text_of

__all__ = ["Clocks", "read_clocks"]

# Names of the GPU under /sys/class/devfreq: 57000000.gpu (Nano), 17000000.gv11b (Xavier), 17000000.ga10b and
# 17000000.gpu (Orin), gpu-gpc-0 (Thor).
GPU_NAME = re.compile(r"gpu|\.g[a-z]\d\d[a-z]$")


@dataclass(frozen=True)
class Clocks:
    """In MHz. ``cpu`` is the median of the cores now, ``cpu_max`` what the fastest of them may reach.

    None where the machine does not tell: most virtual machines do not, and no GPU but Jetson's is asked.
    """

    cpu: float | None
    cpu_max: float | None
    governor: str | None
    gpu: float | None
    gpu_max: float | None


def read_clocks(root: Path = Path("/")) -> Clocks:
    """From cpufreq (kHz), else ``/proc/cpuinfo``; and from the GPU's devfreq (Hz)."""
    policies = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"))
    gpus = [path for path in sorted(root.glob("sys/class/devfreq/*")) if GPU_NAME.search(path.name)]
    governors = sorted({text for path in policies if (text := text_of(path / "scaling_governor"))})
    now = [number / 1e3 for number in _numbers(policies, "scaling_cur_freq")] or _of_cpuinfo(root)
    return Clocks(
        cpu=statistics.median(now) if now else None,
        cpu_max=max((number / 1e3 for number in _numbers(policies, "scaling_max_freq")), default=None),
        governor=", ".join(governors) or None,
        gpu=max((number / 1e6 for number in _numbers(gpus, "cur_freq")), default=None),
        gpu_max=max((number / 1e6 for number in _numbers(gpus, "max_freq")), default=None),
    )


def _numbers(folders: Iterable[Path], name: str) -> list[int]:
    return [number for folder in folders if (number := number_in(folder / name)) is not None]


def _of_cpuinfo(root: Path) -> list[float]:
    text = text_of(root / "proc/cpuinfo") or ""
    return [float(megahertz) for megahertz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE)]
