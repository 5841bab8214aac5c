"""A run that is killed with SIGKILL at random moments and started again ends with the same bits as one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

# Distils in forked children, which it kills: torch is imported once, and does nothing before a fork.
RUNNER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
import torch._dynamo  # which an optimizer imports, for seconds
from clipedge.export.distillation import Recipe, distill

pairs, exam, folder, seed, text_student = sys.argv[1:6]
recipe = Recipe(steps=24, batch_size=8, validate_every=6, save_every=3, views=1, ema=0.9)

def child(output):
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        own_text = {"text_student": text_student} if text_student else {}
        distill(None, "inherit:layers=1,width=32,heads=2", pairs, output, recipe=recipe, validation=exam, **own_text)
        os._exit(0)
    except BaseException as error:
        print(type(error), error, flush=True)
        os._exit(1)

started = time.monotonic()
_, status = os.waitpid(child(Path(folder) / "whole"), 0)
seconds = time.monotonic() - started
assert status == 0, status
generator, killed = random.Random(int(seed)), 0
for attempt in range(60):
    pid = child(Path(folder) / "killed")
    # The first children die early and late in one run's time; then they have all the time they need.
    deadline = time.monotonic() + (generator.uniform(0.1, 0.7) * seconds if attempt < 5 else 600)
    done = 0
    while not done and time.monotonic() < deadline:
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
@pytest.mark.parametrize("text_student", ["", "inherit:layers=1,mlp=64"], ids=["image-tower", "both-towers"])
def test_a_killed_run_ends_with_the_same_bits(text_student: str, pairs: Path, exam: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUNNER, str(pairs), str(exam), str(tmp_path), "11", text_student]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) >= 2
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for name in ("model.safetensors", "training/state.safetensors", "loss.svg", "validation.svg", "config.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    with safe_open(whole / "training" / "state.safetensors", framework="pt") as file:
        assert any(name.startswith("optimizer.text.") for name in list(file.keys())) == bool(text_student)
    results = [json.loads((folder / "distill.json").read_bytes()) for folder in (whole, killed)]
    assert results[0] == results[1] and results[0]["result"]["steps"] == 24
