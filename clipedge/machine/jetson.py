"""Which Jetson this is, with which software, in which power mode. Nothing of this has run on one."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from clipedge.machine.files import text_of

__all__ = ["Jetson", "PowerMode", "parse_nvpmodel", "parse_release", "read_jetson"]

# Jetson Linux's major version -> JetPack's (NVIDIA's JetPack archive).
JETPACK = {32: 4, 34: 5, 35: 5, 36: 6, 38: 7}
SECONDS = 10.0  # for a command to answer


@dataclass(frozen=True)
class PowerMode:
    """As nvpmodel calls it, ``MAXN`` or ``15W``, with its number, which means another mode on another board."""

    name: str
    number: int | None


@dataclass(frozen=True)
class Jetson:
    """``release`` is Jetson Linux's (L4T's) version, ``36.4.3``; ``jetpack`` the package's, or what that belongs to."""

    model: str
    release: str | None
    jetpack: str | None
    power_mode: PowerMode | None


def read_jetson(root: Path = Path("/")) -> Jetson | None:
    """None on any other machine. A container may hide the device tree; then ``/etc/nv_tegra_release`` tells."""
    model = text_of(root / "proc/device-tree/model") or ""
    text = text_of(root / "etc/nv_tegra_release")
    if text is None and "jetson" not in model.lower():
        return None
    release = parse_release(text or "")
    package = _answer("dpkg-query", "--show", "--showformat=${Version}", "nvidia-jetpack")
    jetpack = package.partition("+")[0] or None if package else None
    if jetpack is None and release is not None:
        jetpack = {major: str(number) for major, number in JETPACK.items()}.get(int(release.partition(".")[0]))
    return Jetson(model or "unknown Jetson", release, jetpack, parse_nvpmodel(_answer("nvpmodel", "-q") or ""))


def parse_release(text: str) -> str | None:
    """``36.4.3`` of ``# R36 (release), REVISION: 4.3, GCID: ...``, the first line of ``/etc/nv_tegra_release``."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found.group(1)}.{found.group(2)}" if found else None


def parse_nvpmodel(text: str) -> PowerMode | None:
    """Of ``nvpmodel -q``: a line ``NV Power Mode: MAXN``, and the mode's number in the next."""
    found = re.search(r"NV Power Mode:\s*(\S+)[ \t]*(?:\n\s*(\d+))?", text)
    return PowerMode(found.group(1), int(found.group(2)) if found.group(2) else None) if found else None


def _answer(*command: str) -> str | None:
    """What a command prints, or None if it is not there, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS, errors="replace")
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
