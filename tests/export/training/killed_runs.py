"""Started by test_resume.py: a run of `clipedge`, whole, and once more killed with SIGKILL at random moments.

    python killed_runs.py FOLDER SEED VERB OPTIONS...

The runs are forked here, so that torch is imported once, and does nothing before a fork. Prints how often it killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import torch._dynamo  # which an optimizer imports, for seconds

from clipedge.cli import main

KILLED, MOST = 5, 60  # children that may not end, and children at all


def start(command: list[str], output: Path) -> int:
    """Fork a run; returns the child's number."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        torch.set_num_threads(1)
        code = main([*command, "--output", str(output)])
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def used(child: int) -> float:
    """Processor seconds: however busy the machine is, they say how far a child has come."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kill_until_it_ends(command: list[str], output: Path, seconds: float, generator: random.Random) -> int:
    """The first children die early and late in one run's work; then they may do all of it. Returns how many died."""
    for killed in range(MOST):
        child = start(command, output)
        limit = generator.uniform(0.1, 0.6) * seconds if killed < KILLED else float("inf")
        done, status = 0, 0
        while not done and used(child) < limit:
            time.sleep(0.003)
            done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, status
            return killed
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    raise AssertionError(f"{MOST} children, and no end")


if __name__ == "__main__":
    place, seed, *arguments = sys.argv[1:]
    _, status, usage = os.wait4(start(arguments, Path(place) / "whole"), 0)
    assert status == 0, status
    seconds = usage.ru_utime + usage.ru_stime
    print(kill_until_it_ends(arguments, Path(place) / "killed", seconds, random.Random(int(seed))))
