"""The contenders' processes, of which one runs at a time: the others are stopped (SIGSTOP) until it is their turn."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from layout import REPOSITORY

__all__ = ["Worker", "WorkerError", "running"]

WORKER = REPOSITORY / "benchmarks" / "worker.py"


class WorkerError(Exception):
    """A contender's process failed; the message is the last line that it wrote."""


@dataclass(frozen=True)
class Worker:
    """A process of ``worker.py`` that waits for jobs. ``cold_start_ms``: from its start to its first label."""

    process: subprocess.Popen[str]
    errors: IO[str]
    cold_start_ms: float

    def ask(self, **job: Any) -> Any:
        """Have it do one of its jobs, while nobody else runs. Raises WorkerError if it fails."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise _failure(self.process, self.errors) from None
        return _answer(self.process, self.errors)


@contextmanager
def running(python: str, contender: str, shape: str) -> Iterator[Worker]:
    """Start a contender and wait for its first label. Raises WorkerError if it cannot give one."""
    command = [python, str(WORKER), json.dumps({"contender": contender, "shape": shape})]
    # A file takes what libraries say on stderr: a pipe that nobody reads would fill and stop the process.
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            _answer(process, errors)
            yield Worker(process, errors, round(1000 * (time.perf_counter() - start), 1))
        finally:
            process.kill()
            process.communicate()


def _answer(process: subprocess.Popen[str], errors: IO[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise _failure(process, errors)
    process.send_signal(signal.SIGSTOP)
    return json.loads(line)


def _failure(process: subprocess.Popen[str], errors: IO[str]) -> WorkerError:
    process.wait()
    errors.seek(0)
    return WorkerError((errors.read().strip().splitlines() or ["it wrote nothing"])[-1])
