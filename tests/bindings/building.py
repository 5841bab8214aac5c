"""Builds of libclipedge in the folder build/ of the repository; only what changed is compiled again."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SOURCES = REPOSITORY / "bindings" / "c"
HEADERS = REPOSITORY / "build" / "onnxruntime-headers"


def run(command: Sequence[str | Path], **options: object) -> str:
    """What a command prints. Raises AssertionError with all of it where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def build(name: str, *settings: str, targets: Sequence[str] = ("all",)) -> Path:
    """Build libclipedge with CMake settings in build/NAME; returns that folder.

    ONNX Runtime is this environment's wheel. Its headers are the system's, or those that `make bindings-dependencies`
    fetched.
    """
    wanted = [f"-DONNXRUNTIME_PYTHON={sys.executable}", "-DCLIPEDGE_EXAMPLES=ON", *settings]
    if (HEADERS / "onnxruntime_c_api.h").is_file():
        wanted.append(f"-DONNXRUNTIME_INCLUDE_DIR={HEADERS}")
    return cmake(SOURCES, name, *wanted, targets=targets)


def cmake(sources: Path, name: str, *settings: str, targets: Sequence[str] = ("all",)) -> Path:
    """Build a CMake project in build/NAME; returns that folder."""
    with locked(name) as folder:
        run(["cmake", "-S", sources, "-B", folder, *settings])
        run(["cmake", "--build", folder, "--parallel", "2", "--target", *targets])
    return folder


def install(folder: Path, name: str) -> Path:
    """Install what was built in ``folder`` into build/NAME; returns that prefix."""
    with locked(name) as prefix:
        run(["cmake", "--install", folder, "--prefix", prefix])
    return prefix


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """build/NAME, which no other process writes meanwhile: tests run in several."""
    folder = REPOSITORY / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
