"""An engine built and proven by NVIDIA's ``trtexec``, where TensorRT's Python package is not. Not yet run on a GPU.

Its options, log and output are those of the samples that NVIDIA publishes with TensorRT 10.3 to 11.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.backends import BATCH, NUMBERS, check_input
from clipedge.backends.fp8 import check_fp8
from clipedge.engines import WORKSPACE_BYTES
from clipedge.engines.cache import made_for, tensorrt_facts
from clipedge.engines.compiled import Compiled, Progress
from clipedge.errors import BackendError
from clipedge.manifest import TensorSpec, Variant

__all__ = ["TrtexecEngine", "compile_engine", "find_trtexec"]

JETPACK_PLACE = "/usr/src/tensorrt/bin/trtexec"  # also of NVIDIA's Debian packages, which put it on no PATH
PLAN_NAME = "engine.plan"


def find_trtexec() -> str | None:
    return shutil.which("trtexec") or shutil.which(JETPACK_PLACE)


def compile_engine(graph: Path, variant: Variant, work: Path, timings: Path, progress: Progress) -> Compiled:
    """As ``tensorrt_builder.compile_engine``. ``trtexec`` reports no progress: ``progress`` is told once."""
    program = find_trtexec()
    if program is None:
        raise BackendError(f"trtexec is neither on the PATH nor at {JETPACK_PLACE}: install TensorRT's libnvinfer-bin")
    progress(f"trtexec builds {graph.name}", 0, 1)
    spec, plan = variant.inputs[0], work / PLAN_NAME
    timings.parent.mkdir(parents=True, exist_ok=True)
    log = _run(
        program,
        f"--onnx={graph}",
        f"--saveEngine={plan}",
        "--stronglyTyped",
        "--noTF32",
        f"--minShapes={_shape(spec, 1)}",
        f"--optShapes={_shape(spec, 1)}",
        f"--maxShapes={_shape(spec, BATCH)}",
        f"--memPoolSize=workspace:{WORKSPACE_BYTES >> 20}",  # in MiB
        f"--timingCacheFile={timings}",
        "--skipInference",
    )
    if not plan.is_file():
        raise BackendError(f"{program} wrote no engine of {graph.name} and gave no error: update TensorRT")
    version, gpu, capability = _device(log)
    check_fp8(variant, gpu, capability, version)
    engine = TrtexecEngine(program, plan, variant, version, gpu)
    return Compiled(engine, made_for(variant, tensorrt_facts(version, gpu, capability)), f"trtexec {version}")


class TrtexecEngine:
    """An engine of which every call starts ``trtexec``: seconds a call, enough to prove it."""

    name = "trtexec"

    def __init__(self, program: str, plan: Path, variant: Variant, version: str, device: str) -> None:
        self.version, self.device = version, device
        self.arithmetic = NUMBERS[variant.precision]
        self._program, self._plan, self._variant = program, plan, variant

    def __call__(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        check_input(batch, self._variant)
        spec = self._variant.inputs[0]
        source, target = self._plan.with_name("input.bin"), self._plan.with_name("output.json")
        try:
            source.write_bytes(np.ascontiguousarray(batch).tobytes())
            _run(
                self._program,
                f"--loadEngine={self._plan}",
                f"--shapes={_shape(spec, len(batch))}",
                f"--loadInputs={spec.name}:{source}",
                f"--exportOutput={target}",
                "--warmUp=0",
                "--duration=0",
                "--iterations=1",
            )
            return self._embeds(target)
        finally:
            source.unlink(missing_ok=True)
            target.unlink(missing_ok=True)

    def _embeds(self, target: Path) -> npt.NDArray[np.float32]:
        """The output tensor in what ``--exportOutput`` wrote: [{"name", "dimensions": "1x512", "values": [...]}]."""
        name = self._variant.outputs[0].name
        try:
            tensors: Any = json.loads(target.read_text(encoding="utf-8"))
            (tensor,) = [tensor for tensor in tensors if tensor["name"] == name]
            shape = [int(size) for size in tensor["dimensions"].split("x")]
            return np.asarray(tensor["values"], np.float32).reshape(shape)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BackendError(
                f"{self._program} gave no numbers for {name} ({error}): the engine computes NaN, or this TensorRT "
                "writes another format; export in another precision, or install TensorRT's Python package"
            ) from None


def _shape(spec: TensorSpec, batch: int) -> str:
    """``pixels:1x224x224x3``"""
    return f"{spec.name}:" + "x".join(map(str, (batch, *spec.shape[1:])))


def _run(program: str, *options: str) -> str:
    """The log of one run. Raises BackendError with the first error in it."""
    outcome = subprocess.run(
        [program, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if outcome.returncode:
        errors = re.findall(r"\[E\] (.+)", outcome.stdout) or outcome.stdout.splitlines()[-1:] or ["no word"]
        raise BackendError(
            f"{program} failed with {errors[0].strip()}: check that `nvidia-smi` shows a GPU, and export the bundle "
            "again with --target tensorrt"
        )
    return outcome.stdout


def _device(log: str) -> tuple[str, str, str]:
    """(TensorRT's version, GPU, compute capability) as a run's log names them: v100300 is 10.3.0."""
    version = re.search(r"\[TensorRT v(\d+)\]", log)
    gpu = re.search(r"Selected Device: (.+)", log)
    capability = re.search(r"Compute Capability: (\d+\.\d+)", log)
    if version is None or gpu is None or capability is None:
        raise BackendError("trtexec's log does not name its version and GPU: install TensorRT's Python package")
    number = int(version[1])
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}", gpu[1].strip(), capability[1]
