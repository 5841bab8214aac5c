"""How a checkup reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clipedge.doctor.checkup import Checkup, checkup_lines
from clipedge.doctor.gpu import Gpu
from clipedge.machine.clocks import Clocks
from clipedge.machine.describe import Machine
from clipedge.machine.processor import Processor

CHECKUP = Checkup(
    works=True,
    clipedge="1.0",
    machine=Machine(Processor("Some CPU", "x86_64", 8, {}), None, None, None, "Linux 6.1", "3.11.2"),
    clocks=Clocks(None, None, None, None, None),
    gpus=(),
    engines=(),
    packages={},
    rails=(),
    disk_free_gb=50.0,
    advice=(),
    never_run=(),
)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("8.9", "NVIDIA L4, driver 570.86.15, 24.2 GB, compute capability 8.9 (FP8)"),
        ("8.6", "NVIDIA L4, driver 570.86.15, 24.2 GB, compute capability 8.6 (no FP8)"),
        (None, "NVIDIA L4, driver 570.86.15, 24.2 GB"),
    ],
)
def test_a_gpu_is_said_to_have_fp8_or_not(capability: str | None, expected: str) -> None:
    found = replace(CHECKUP, gpus=(Gpu("NVIDIA L4", "570.86.15", 24152.0, capability),))
    (line,) = [line for line in checkup_lines(found) if line.startswith("  GPU ")]
    assert line.split(maxsplit=1)[1] == expected
