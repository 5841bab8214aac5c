"""The whole examination, and how it reads."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from clipedge import __version__
from clipedge.backends.fp8 import has_fp8
from clipedge.doctor.advice import Advice, advice, never_run
from clipedge.doctor.engines import probe_engines
from clipedge.doctor.gpu import Gpu, read_gpus
from clipedge.doctor.packages import installed_packages
from clipedge.doctor.probe import Probe
from clipedge.machine.clocks import Clocks, read_clocks
from clipedge.machine.describe import Machine, describe_machine
from clipedge.machine.rails import find_rails

__all__ = ["Checkup", "checkup_lines", "examine"]

SHOWN_PACKAGES = ("numpy", "pillow", "safetensors", "tokenizers", "torch", "onnx")


@dataclass(frozen=True)
class Checkup:
    """``works``: whether some engine runs, so that a bundle can. ``rails`` are the power rails that can be read."""

    works: bool
    clipedge: str
    machine: Machine
    clocks: Clocks
    gpus: tuple[Gpu, ...]
    engines: tuple[Probe, ...]
    packages: dict[str, str]
    rails: tuple[str, ...]
    disk_free_gb: float
    advice: tuple[Advice, ...]
    never_run: tuple[str, ...]


def examine() -> Checkup:
    """Takes some seconds: each engine is started in a process of its own."""
    machine, packages, engines, gpus = describe_machine(), installed_packages(), probe_engines(), read_gpus()
    disk_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    return Checkup(
        works=any(item.state == "works" for item in engines),
        clipedge=__version__,
        machine=machine,
        clocks=read_clocks(),
        gpus=gpus,
        engines=engines,
        packages={name: packages[name] for name in SHOWN_PACKAGES if name in packages},
        rails=tuple(rail.name for rail in find_rails()),
        disk_free_gb=disk_gb,
        advice=advice(machine, packages, engines, gpus, disk_gb),
        never_run=never_run(machine, gpus),
    )


def checkup_lines(found: Checkup) -> list[str]:
    """For a terminal."""
    machine = found.machine
    lines = [f"clipedge {found.clipedge}, Python {machine.python}, {machine.system}"]
    lines += [_line(name, value) for name, value in _machine_facts(found)]
    lines += ["", "engines"]
    for item in found.engines:
        version = f" {item.version}" if item.version else ""
        lines.append(_line(f"{item.engine}{version}", f"{item.state}: {item.detail}"))
        lines += [_line(f"  {name}", state) for name, state in item.devices.items()]
    if found.advice:
        lines += ["", "what could be better"]
    for note in found.advice:
        lines.append(f"  {note.weight}: {note.what}")
        lines += [f"      {note.command}"] if note.command else []
    if found.never_run:
        lines += ["", "what was never tried", *(f"  {line}" for line in found.never_run)]
    return lines


def _machine_facts(found: Checkup) -> list[tuple[str, str]]:
    machine = found.machine
    features = ", ".join(name if there else f"no {name}" for name, there in machine.processor.features.items())
    facts = [
        ("processor", f"{machine.processor.name} ({machine.processor.architecture}), {machine.processor.cores} cores"),
        ("features", features or "unknown for this architecture"),
    ]
    if machine.board:
        facts.append(("board", machine.board))
    if machine.jetson is not None:
        mode = machine.jetson.power_mode
        facts += [
            ("JetPack", f"{machine.jetson.jetpack or 'unknown'}, Jetson Linux {machine.jetson.release or 'unknown'}"),
            ("power mode", "unknown (nvpmodel does not answer)" if mode is None else f"{mode.name}, {mode.number}"),
            ("power rails", ", ".join(found.rails) or "cannot be read"),
        ]
    for gpu in found.gpus:
        memory = "the processor's memory" if gpu.memory_mb is None else f"{gpu.memory_mb / 1e3:.1f} GB"
        facts.append(("GPU", f"{gpu.name}, driver {gpu.driver or 'unknown'}, {memory}{_capability(gpu)}"))
    if not found.gpus:
        facts.append(
            ("GPU", "none of NVIDIA's" if machine.jetson is None else "the Jetson's own; nvidia-smi is silent")
        )
    if machine.memory is not None:
        total, free = machine.memory.total_mb / 1e3, machine.memory.available_mb / 1e3
        facts.append(
            ("memory", f"{total:.1f} GB, {free:.1f} GB of it free; swap {machine.memory.swap_mb / 1e3:.1f} GB")
        )
    facts.append(("disk", f"{found.disk_free_gb:.1f} GB free here"))
    return [*facts, ("packages", ", ".join(f"{name} {version}" for name, version in found.packages.items()))]


def _capability(gpu: Gpu) -> str:
    if gpu.compute_capability is None:
        return ""
    fp8 = "FP8" if has_fp8(gpu.compute_capability) else "no FP8"
    return f", compute capability {gpu.compute_capability} ({fp8})"


def _line(name: str, value: str) -> str:
    return f"  {name:22}{value}"
