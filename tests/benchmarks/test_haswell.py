"""INT8 answers on emulated processors without VNNI: skipped only where QEMU's user mode is not installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from haswell import HERE, INSTALL, QEMU, measure

SCENES = 16


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(QEMU) is None, reason=INSTALL)
def test_an_emulated_haswell_gives_the_same_answers(demo_bundle: Path) -> None:
    here, haswell = measure(demo_bundle, SCENES, (HERE, "Haswell"), ("onnxruntime",))
    assert haswell.saturates  # or nothing was tried
    assert not haswell.has_vnni
    assert haswell.within_gate
    assert haswell.same_label >= here.same_label - 1
    assert haswell.largest_difference < 1e-3
