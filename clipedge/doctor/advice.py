"""What a machine lacks, and the command that adds it; and what nobody has run yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipedge.doctor.gpu import Gpu
from clipedge.doctor.packages import missing_extras, rival_runtimes
from clipedge.doctor.probe import Probe
from clipedge.machine.describe import Machine
from clipedge.machine.processor import family

__all__ = ["Advice", "advice", "never_run"]

CUDA = "CUDAExecutionProvider"
LEAST_MEMORY_MB = 1000.0
LEAST_DISK_GB = 1.0


@dataclass(frozen=True)
class Advice:
    """``weight``: "broken" (nothing runs, or something is damaged), "better" (it would be faster), or "optional"."""

    weight: str
    what: str
    command: str | None = None


def advice(
    machine: Machine, packages: Mapping[str, str], engines: Sequence[Probe], gpus: Sequence[Gpu], disk_gb: float
) -> tuple[Advice, ...]:
    """The heaviest first."""
    found = [*_engine_advice(machine, packages, engines, gpus), *_room(machine, disk_gb)]
    found += [
        Advice("optional", f"[{extra}] is not installed: {use}", f'pip install "clipedge[{extra}]"')
        for extra, use in missing_extras(packages).items()
    ]
    weights = ("broken", "better", "optional")
    return tuple(sorted(found, key=lambda item: weights.index(item.weight)))


def never_run(machine: Machine, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """In which respects this machine is of a kind on which ClipEdge's authors have run nothing."""
    lines = []
    if machine.jetson is not None:
        lines.append(
            "ClipEdge has never been run on a Jetson: what doctor and bench read there is tested on text alone"
        )
    elif family(machine.processor.architecture) == "arm":
        lines.append("ClipEdge has never been run on an ARM processor")
    if machine.processor.features.get("VNNI"):
        lines.append("ClipEdge has not been measured on an x86 processor with VNNI")
    if gpus:
        lines.append("ClipEdge has never been run on an NVIDIA GPU")
    return tuple(lines)


def _engine_advice(
    machine: Machine, packages: Mapping[str, str], engines: Sequence[Probe], gpus: Sequence[Gpu]
) -> list[Advice]:
    states = {item.engine: item for item in engines}
    on_gpu = bool(gpus) or machine.jetson is not None
    extra = "gpu" if on_gpu and machine.jetson is None else "cpu"
    found = []
    rivals = rival_runtimes(packages)
    if rivals:
        found.append(
            Advice(
                "broken",
                f"{' and '.join(rivals)} are both installed and overwrite each other's files: keep one",
                f'pip uninstall --yes {" ".join(rivals)} && pip install "clipedge[{extra}]"',
            )
        )
    found += [
        Advice("broken", f"{item.engine} is installed and does not work: {item.detail}")
        for item in engines
        if item.state == "broken"
    ]
    if not any(item.state == "works" for item in engines):
        found.append(Advice("broken", "no engine works, so no bundle runs", f'pip install "clipedge[{extra}]"'))
    if states["onnxruntime"].state == "works" and on_gpu and states["onnxruntime"].devices.get(CUDA) != "works":
        found.append(_without_cuda(machine, states["onnxruntime"]))
    if states["tensorrt"].state == "missing" and on_gpu:
        found.append(_without_tensorrt(machine))
    if states["openvino"].state == "missing" and machine.processor.features.get("VNNI"):
        found.append(
            Advice("better", "with VNNI, OpenVINO is the faster engine for INT8", 'pip install "clipedge[openvino]"')
        )
    if machine.processor.features.get("VNNI") is False:
        found.append(Advice("optional", "this x86 has no VNNI: INT8 is at most about twice as fast as float32 here"))
    return found


def _without_cuda(machine: Machine, runtime: Probe) -> Advice:
    if CUDA in runtime.devices:
        return Advice("better", f"ONNX Runtime's CUDA provider {runtime.devices[CUDA]}")
    if machine.jetson is not None:
        what = "ONNX Runtime was built without CUDA: put the wheel of onnxruntime-gpu for this JetPack in its place"
        return Advice("better", what)
    command = 'pip uninstall --yes onnxruntime && pip install "clipedge[gpu]"'
    return Advice("better", "there is a GPU, and this ONNX Runtime was built without CUDA", command)


def _without_tensorrt(machine: Machine) -> Advice:
    if machine.jetson is None:
        return Advice("better", "there is a GPU, and TensorRT is not installed", 'pip install "clipedge[tensorrt]"')
    what = (
        "TensorRT's Python package cannot be imported: it comes with JetPack, and a virtual environment sees it only "
        "if it was made with --system-site-packages"
    )
    return Advice("better", what, "sudo apt install python3-libnvinfer")


def _room(machine: Machine, disk_gb: float) -> list[Advice]:
    found = []
    if machine.memory is not None and machine.memory.available_mb < LEAST_MEMORY_MB:
        found.append(
            Advice("better", f"only {machine.memory.available_mb:.0f} MB of memory are free: end other programs")
        )
    if disk_gb < LEAST_DISK_GB:
        found.append(Advice("better", f"only {disk_gb:.1f} GB are free on this folder's disk: engines need some"))
    return found
