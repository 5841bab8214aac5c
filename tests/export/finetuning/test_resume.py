"""A run that is killed with SIGKILL at random moments and started again ends with the same bits as one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Tunes in forked children, which it kills: torch is imported once, and does nothing before a fork.
RUNNER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
import torch._dynamo  # which an optimizer imports, for seconds
from clipedge.export.finetuning import Recipe, finetune

classes, folder, seed = sys.argv[1:4]
recipe = Recipe(steps=24, batch_size=8, validate_every=6, save_every=3, ema=0.9, learning_rate=1e-3)

def child(output):
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        finetune(None, classes, output, recipe=recipe, validation=classes)
        os._exit(0)
    except BaseException as error:
        print(type(error), error, flush=True)
        os._exit(1)

def used(pid):  # processor seconds: however busy the machine is, they say how far a child has come
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

_, status, usage = os.wait4(child(Path(folder) / "whole"), 0)
seconds = usage.ru_utime + usage.ru_stime
assert status == 0, status
generator, killed = random.Random(int(seed)), 0
for attempt in range(60):
    pid = child(Path(folder) / "killed")
    # The first children die early and late in one run's work; then they may do all of it.
    limit = generator.uniform(0.1, 0.6) * seconds if attempt < 5 else 600
    done = 0
    while not done and used(pid) < limit:
        time.sleep(0.003)
        done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        killed += 1
    elif status:
        raise SystemExit(1)
    else:
        break
print(killed)
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(classes: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUNNER, str(classes), str(tmp_path), "11"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) >= 2
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for name in ("model.safetensors", "training/state.safetensors", "loss.svg", "validation.svg", "interpolation.svg"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    results = [json.loads((folder / "finetune.json").read_bytes()) for folder in (whole, killed)]
    assert results[0] == results[1] and results[0]["result"]["steps"] == 24
