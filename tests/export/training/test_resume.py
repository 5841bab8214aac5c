"""A run that is killed with SIGKILL at random moments and started again ends with the same bits as one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "killed_runs.py"
SETTINGS = ["--steps", "24", "--batch-size", "8", "--validate-every", "6", "--save-every", "3"]
DISTILL = ["distill", "--student", "inherit:layers=1,width=32,heads=2", "--views", "1", "--data", "{pairs}"]
FINETUNE = ["finetune", "--learning-rate", "0.001", "--data", "{exam}"]


@pytest.mark.slow
@pytest.mark.parametrize("verb", [DISTILL, FINETUNE], ids=["distill", "finetune"])
def test_a_killed_run_ends_with_the_same_bits(verb: list[str], pairs: Path, exam: Path, tmp_path: Path) -> None:
    options = [option.format(pairs=pairs, exam=exam) for option in (*verb, "--validation", "{exam}")]
    command = [sys.executable, str(SCRIPT), str(tmp_path), "11", *options, *SETTINGS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) >= 2
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    assert names == {path.relative_to(killed) for path in killed.rglob("*") if path.is_file()}
    assert {Path("model.safetensors"), Path("training/state.safetensors"), Path("loss.svg")} < names
    for name in names:
        if name.parent.name != "teacher":  # whose shards have a header with keys in any order
            assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert json.loads((whole / f"{verb[0]}.json").read_bytes())["result"]["steps"] == 24
