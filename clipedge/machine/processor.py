"""The processor as ``/proc/cpuinfo`` describes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FEATURES", "Processor", "family", "parse_cpuinfo"]

# What decides how fast INT8 and float16 are: name -> the flags, in Linux's words, any of which says that it is there.
FEATURES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "x86": {
        "AVX2": ("avx2",),
        "AVX-512": ("avx512f",),
        "VNNI": ("avx512_vnni", "avx_vnni"),
        "AMX INT8": ("amx_int8",),
    },
    "arm": {
        "dot product": ("asimddp",),
        "i8mm": ("i8mm",),
        "SVE": ("sve",),
        "half precision": ("asimdhp",),
    },
}
# ARM's cpuinfo has numbers for names; (implementer, part) of the boards' cores, from Linux's asm/cputype.h.
ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x4E, 0x003): "NVIDIA Denver",
    (0x4E, 0x004): "NVIDIA Carmel",
}


@dataclass(frozen=True)
class Processor:
    """``features`` are those of ``FEATURES`` for its architecture, each there or not; none for other architectures."""

    name: str
    architecture: str
    cores: int
    features: Mapping[str, bool]


def family(architecture: str) -> str | None:
    """``"x86"`` or ``"arm"``, as bundles call their targets, of what ``platform.machine()`` says; None for others."""
    return {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}.get(architecture.lower())


def parse_cpuinfo(text: str, architecture: str, cores: int) -> Processor:
    """The processor of a ``/proc/cpuinfo``; ``architecture`` as ``platform.machine()`` names it."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(found.group(1).split()) if found else set()
    known = FEATURES.get(family(architecture) or "", {})
    features = {name: bool(flags & set(any_of)) for name, any_of in known.items()}
    return Processor(_name(text) or architecture, architecture, cores, features)


def _name(text: str) -> str | None:
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    if model:
        return model.group(1).strip()
    implementers = re.findall(r"^CPU implementer\s*:\s*(0x[0-9a-fA-F]+)", text, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*(0x[0-9a-fA-F]+)", text, re.MULTILINE)
    kinds = dict.fromkeys((int(a, 16), int(b, 16)) for a, b in zip(implementers, parts, strict=False))
    names = [ARM_CORES.get(kind, f"ARM implementer {kind[0]:#x}, part {kind[1]:#x}") for kind in kinds]
    return " and ".join(names) or None
