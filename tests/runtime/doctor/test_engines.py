"""Engines are tried in processes of their own, whatever becomes of these."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipedge.doctor.engines import ENGINES, run_probe


def probe_process(engine: str, modules: Path | None = None) -> list[str]:
    """The probe's command; ``modules`` come before what is installed."""
    if modules is None:
        return [sys.executable, "-m", "clipedge.doctor.probe", engine]
    code = f"import sys; sys.path.insert(0, {str(modules)!r}); from clipedge.doctor.probe import main; main({engine!r})"
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_installed_engine_works(engine: str) -> None:
    found = run_probe(engine, probe_process(engine))
    assert (found.engine, found.state) == (engine, "works"), found.detail
    assert found.version is not None
    assert importlib.metadata.version(engine).startswith(found.version)


def test_every_backend_and_tensorrt_are_tried() -> None:
    assert set(ENGINES) >= {"onnxruntime", "openvino", "tensorrt"}


def test_a_missing_engine_is_missing(tmp_path: Path) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('not here')\n")
    found = run_probe("openvino", probe_process("openvino", tmp_path))
    assert (found.state, found.version) == ("missing", None)
    assert 'pip install "clipedge[openvino]"' in found.detail


def test_tensorrt_without_its_library_is_broken(tmp_path: Path) -> None:
    """What its wheel says where libnvinfer is not there."""
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')\n")
    found = run_probe("tensorrt", probe_process("tensorrt", tmp_path))
    assert found.state == "broken"
    assert "libnvinfer.so.10" in found.detail


@pytest.mark.skipif(os.name != "posix", reason="signals there")
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "SIGILL, an instruction that this processor lacks"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended its process: SIGSEGV"),
        ("import sys; sys.exit('libgomp: out of luck')", "ended with code 1: libgomp: out of luck"),
        ("print('loading ...')", "ended with code 0: no message"),
        ("import time; time.sleep(60)", "did not answer within 0.5 seconds"),
    ],
)
def test_an_engine_that_takes_its_process_down_is_broken(code: str, expected: str) -> None:
    found = run_probe("onnxruntime", [sys.executable, "-c", code], seconds=0.5 if "sleep" in code else 60)
    assert found.state == "broken"
    assert expected in found.detail


def test_what_an_engine_prints_is_not_in_the_report(tmp_path: Path) -> None:
    noise = "import os; os.write(1, b'hello from C\\n'); print('hello from Python'); raise ImportError('none')\n"
    (tmp_path / "openvino.py").write_text(noise)
    done = subprocess.run(probe_process("openvino", tmp_path), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["state"] == "missing"
    assert "hello from C" in done.stderr and "hello from Python" in done.stderr
