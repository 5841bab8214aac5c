"""What the processor can do, as far as it decides how INT8 and float16 are computed."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["has_half_products", "has_vnni", "products_saturate"]


def has_vnni() -> bool:
    """Whether an x86 CPU multiplies u8 x s8 into 32 bits. Where that cannot be told: no, which is slow but right."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def products_saturate() -> bool:
    """Whether this CPU's u8 x s8 instructions add pairs of products in 16 bits, which overflow: x86 without VNNI."""
    return platform.machine().lower() in ("x86_64", "amd64") and not has_vnni()


def has_half_products() -> bool:
    """Whether an ARM CPU multiplies float16, of which engines then make use. Where that cannot be told: yes."""
    if platform.machine().lower() not in ("aarch64", "arm64"):
        return False
    try:
        return "asimdhp" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # macOS: Apple's processors do
        return True
