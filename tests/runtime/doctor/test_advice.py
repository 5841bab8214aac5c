"""What a machine lacks, from what is known of it; and readers of packages and GPUs."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path

import pytest

from clipedge.doctor.advice import advice, never_run
from clipedge.doctor.gpu import Gpu, parse_driver, parse_nvidia_smi, read_gpus
from clipedge.doctor.packages import EXTRAS, installed_packages, rival_runtimes
from clipedge.doctor.probe import Probe
from clipedge.machine.describe import Machine
from clipedge.machine.jetson import Jetson
from clipedge.machine.memory import Memory
from clipedge.machine.processor import Processor

ALL = {name: "1.0" for names, _ in EXTRAS.values() for name in names} | {"onnxruntime": "1.23.0"}
X86 = Processor("Some CPU", "x86_64", 8, {"AVX2": True, "AVX-512": True, "VNNI": True, "AMX INT8": False})
MACHINE = Machine(X86, Memory(16e3, 8e3, 0.0), None, None, "Linux 6.1", "3.11.2")
JETSON = replace(
    MACHINE,
    processor=Processor("Cortex-A78AE", "aarch64", 8, {"dot product": True}),
    jetson=Jetson("NVIDIA Jetson AGX Orin", "36.4.3", "6.2", None),
)
GPU = Gpu("NVIDIA RTX 4000", "570.86.15", 20e3, "8.9")
WORKING = (
    Probe("onnxruntime", "works", "1.23.0", "", {}),
    Probe("openvino", "works", "2025.3", "", {}),
    Probe("tensorrt", "missing", None, "", {}),
)


def test_a_machine_that_lacks_nothing_gets_no_advice() -> None:
    assert advice(MACHINE, ALL, WORKING, (), disk_gb=50) == ()


def test_without_an_engine_nothing_runs() -> None:
    missing = tuple(replace(item, state="missing") for item in WORKING)
    first, *_ = advice(MACHINE, {}, missing, (), 50)
    assert (first.weight, first.command) == ("broken", 'pip install "clipedge[cpu]"')
    first, *_ = advice(MACHINE, {}, missing, (GPU,), 50)
    assert first.command == 'pip install "clipedge[gpu]"'


def test_two_packages_of_onnx_runtime_are_found_out(tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu", "onnxruntime-extensions"):
        folder = tmp_path / f"{name}-1.23.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.23.0\n")
    (tmp_path / "broken-1.0.dist-info").mkdir()
    packages = installed_packages(distributions(path=[str(tmp_path)]))
    assert packages["onnxruntime-gpu"] == "1.23.0"
    assert rival_runtimes(packages) == ("onnxruntime", "onnxruntime-gpu")
    assert rival_runtimes(ALL) == ()
    first, *_ = advice(MACHINE, ALL | packages, WORKING, (), 50)
    assert first.weight == "broken"
    assert first.command == 'pip uninstall --yes onnxruntime onnxruntime-gpu && pip install "clipedge[cpu]"'


def test_a_gpu_that_is_not_used_is_better_used() -> None:
    said = {item.what: item.command for item in advice(MACHINE, ALL, WORKING, (GPU,), 50)}
    assert said == {
        "there is a GPU, and this ONNX Runtime was built without CUDA": (
            'pip uninstall --yes onnxruntime && pip install "clipedge[gpu]"'
        ),
        "there is a GPU, and TensorRT is not installed": 'pip install "clipedge[tensorrt]"',
    }
    with_cuda = (replace(WORKING[0], devices={"CUDAExecutionProvider": "works"}), *WORKING[1:])
    assert "CUDA" not in " ".join(item.what for item in advice(MACHINE, ALL, with_cuda, (GPU,), 50))
    failing = (replace(WORKING[0], devices={"CUDAExecutionProvider": "does not work: no libcudnn"}), *WORKING[1:])
    assert "no libcudnn" in " ".join(item.what for item in advice(MACHINE, ALL, failing, (GPU,), 50))


def test_a_jetson_is_told_where_its_packages_come_from() -> None:
    said = advice(JETSON, ALL, WORKING, (), 50)
    assert {item.command for item in said} == {None, "sudo apt install python3-libnvinfer"}
    assert any("never been run on a Jetson" in line for line in never_run(JETSON, ()))


def test_what_was_never_run() -> None:
    assert never_run(replace(MACHINE, processor=replace(X86, features={"VNNI": False})), ()) == ()
    assert len(never_run(MACHINE, (GPU,))) == 2  # VNNI, and the GPU


def test_little_room_and_missing_extras() -> None:
    tight = replace(MACHINE, memory=Memory(4e3, 500.0, 0.0))
    weights = [item.weight for item in advice(tight, {"onnxruntime": "1.23.0"}, WORKING, (), 0.5)]
    assert weights == ["better"] * 2 + ["optional"] * len(EXTRAS)


def test_the_extras_are_those_of_the_package() -> None:
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    for extra, (names, _) in EXTRAS.items():
        (required,) = re.findall(rf"^{extra} = \[(.*)\]$", project, re.MULTILINE)
        assert any(f'"{name}' in required for name in names)


def test_nvidia_smis_lines() -> None:
    """A desktop's (github.com/triton-inference-server/server, pull request 8070) and an Orin's, JetPack 6."""
    text = "NVIDIA RTX 5880 Ada Generation, 570.86.15, 49140, 8.9\nOrin (nvgpu), 540.4.0, [N/A], 8.7\n"
    first, second = parse_nvidia_smi(text)
    assert first == Gpu("NVIDIA RTX 5880 Ada Generation", "570.86.15", pytest.approx(49140 * 1.048576), "8.9")
    assert second == Gpu("Orin (nvgpu)", "540.4.0", None, "8.7")
    assert parse_nvidia_smi("No devices were found\n") == ()
    (odd,) = parse_nvidia_smi("NVIDIA L4, 570.86.15, 23034, Not Supported\n")
    assert odd.compute_capability is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  515.65.01  Wed Mar 16 11:24:05 UTC 2022", "515.65.01"),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  384.81  Wed Aug 17 22:24:07 PDT 2016\nGCC version: 4.8.5",
            "384.81",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (buildbrain)", "540.4.0"),
        ("GCC version:  gcc version 4.8.5", None),
    ],
)
def test_the_drivers_file(text: str, expected: str | None) -> None:
    assert parse_driver(text) == expected


def test_a_machine_without_nvidias_driver_has_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_gpus(tmp_path) == ()
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  515.65.01  Wed Mar 16\n")
    assert read_gpus(tmp_path) == (Gpu("NVIDIA GPU", "515.65.01", None, None),)
