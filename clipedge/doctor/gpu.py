"""NVIDIA GPUs, as their driver tells of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from clipedge.machine.files import text_of

__all__ = ["Gpu", "parse_driver", "parse_nvidia_smi", "read_gpus"]

QUERY = "name,driver_version,memory.total,compute_cap"
SECONDS = 20.0


@dataclass(frozen=True)
class Gpu:
    """``memory_mb`` is in MB of 10**6 bytes, None for a GPU that shares the processor's (Jetson)."""

    name: str
    driver: str | None
    memory_mb: float | None
    compute_capability: str | None


def read_gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """By nvidia-smi; where that is missing or fails, one GPU of unknown name if the kernel has NVIDIA's driver."""
    if program := shutil.which("nvidia-smi"):
        command = [program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=SECONDS, errors="replace"
            )
            return parse_nvidia_smi(done.stdout)
        except (OSError, subprocess.SubprocessError):
            pass  # as without a device in this container; the driver's file still tells
    driver = parse_driver(text_of(root / "proc/driver/nvidia/version") or "")
    return (Gpu("NVIDIA GPU", driver, None, None),) if driver else ()


def parse_nvidia_smi(text: str) -> tuple[Gpu, ...]:
    """Lines such as ``NVIDIA RTX 5880 Ada Generation, 570.86.15, 49140, 8.9``; ``[N/A]`` is unknown."""
    gpus = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(", ")]
        if len(fields) == 4:
            name, driver, memory, capability = (None if field.startswith("[") else field for field in fields)
            megabytes = float(memory) * 1.048576 if memory and re.fullmatch(r"[\d.]+", memory) else None
            known = capability if capability and re.fullmatch(r"\d+\.\d+", capability) else None
            gpus.append(Gpu(name or "NVIDIA GPU", driver, megabytes, known))
    return tuple(gpus)


def parse_driver(text: str) -> str | None:
    """``535.129.03`` of ``NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct ...``."""
    found = re.search(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", f"{text}\n", re.MULTILINE)
    return found.group(1) if found else None
