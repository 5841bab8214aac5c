"""On a machine without NVIDIA's parts every request for a GPU ends in one clear sentence with the next step.

Nothing is stood in for: this is such a machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import PIL.Image
import pytest

from clipedge.backends import GPU_BACKENDS
from clipedge.backends.onnxruntime import _check_effective
from clipedge.backends.onnxruntime_cuda import CUDA
from clipedge.cli import main
from clipedge.errors import BackendError, MissingDependencyError
from clipedge.model import load

NEXT_STEPS = {
    "tensorrt": 'TensorRT is not installed: pip install "clipedge[tensorrt]"; a Jetson has it from JetPack',
    "onnxruntime-tensorrt": "has no TensorrtExecutionProvider, only CPUExecutionProvider: pip uninstall onnxruntime, ",
    "onnxruntime-cuda": "has no CUDAExecutionProvider, only CPUExecutionProvider: pip uninstall onnxruntime, then pip",
}

pytestmark = pytest.mark.skipif(
    find_spec("tensorrt") is not None or "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this machine has NVIDIA's parts",
)


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_loading(demo_bundle_fp32: Path, backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingDependencyError) as error:
        load(demo_bundle_fp32, backend=backend)
    assert NEXT_STEPS[backend].replace("CPUExecutionProvider", others()) in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def others() -> str:
    return ", ".join(onnxruntime.get_available_providers())


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("verb", ["inspect", "classify", "eval", "build"])
def test_verbs(
    demo_bundle_fp32: Path, tmp_path: Path, backend: str, verb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if verb == "build" and backend == "onnxruntime-cuda":
        message = "has no engines to build"
    else:
        message = NEXT_STEPS[backend].replace("CPUExecutionProvider", others())
    picture = tmp_path / "cat" / "picture.png"
    picture.parent.mkdir()
    PIL.Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(picture)
    more = {"classify": [str(picture)], "eval": [str(tmp_path)]}.get(verb, [])
    assert main([verb, str(demo_bundle_fp32), *more, "--backend", backend]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("clipedge: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_gpu_is_never_taken_unasked(demo_bundle_fp32: Path) -> None:
    assert load(demo_bundle_fp32).image_engine.name not in GPU_BACKENDS


def test_a_session_that_took_the_cpu_is_refused() -> None:
    """What a session answers where CUDA's library is missing: ONNX Runtime logs an error and takes the CPU."""
    with pytest.raises(BackendError, match=r"asked for CUDAExecutionProvider, .* chose CPUExecutionProvider; it needs"):
        _check_effective(CUDA, ["CPUExecutionProvider"])
    _check_effective(CUDA, ["CUDAExecutionProvider", "CPUExecutionProvider"])


@pytest.mark.filterwarnings("ignore:Specified provider")  # which the real thing does not say, having it
def test_a_build_of_onnx_runtime_that_lost_its_cuda(
    demo_bundle_fp32: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The provider is said to be there, and the session does not get it: the CPU must not compute instead."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA.title, "CPUExecutionProvider"])
    missing = r"libonnxruntime_providers_cuda\.so: cannot open shared object file.*; it needs an NVIDIA GPU"
    with pytest.raises(BackendError, match=missing):
        load(demo_bundle_fp32, backend="onnxruntime-cuda")
    assert capfd.readouterr() == ("", "")


def test_tensorrt_without_its_libraries(demo_bundle_fp32: Path, tmp_path: Path) -> None:
    """What the package does without libnvinfer: it is found, and an import of it fails."""
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    line = failure(tmp_path, "inspect", demo_bundle_fp32, "--backend", "tensorrt")
    assert "TensorRT cannot be loaded (libnvinfer.so.10: cannot open shared object file): pip install" in line


def test_tensorrt_without_cuda_python(demo_bundle_fp32: Path, tmp_path: Path) -> None:
    if find_spec("cuda") is not None:
        pytest.skip("cuda-python is installed")
    (tmp_path / "tensorrt.py").write_text("")
    line = failure(tmp_path, "build", demo_bundle_fp32)
    assert 'the TensorRT backend needs cuda-python: pip install "clipedge[tensorrt]"' in line


def failure(site: Path, *arguments: str | Path) -> str:
    """The one line that the command line says with ``site`` before the installed packages."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "clipedge", *map(str, arguments)]
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    (line,) = outcome.stderr.splitlines()
    return line
