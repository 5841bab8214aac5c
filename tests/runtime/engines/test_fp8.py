"""FP8 is refused where a GPU or a library has none, before anything is built or opened."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from clipedge.backends import EngineOptions
from clipedge.backends import onnxruntime_tensorrt as provider
from clipedge.backends.fp8 import check_fp8, has_fp8
from clipedge.errors import BackendError
from clipedge.manifest import FileEntry, TensorSpec, Variant

Nvidia = Any  # conftest.Nvidia
SPECS = (TensorSpec("pixels", "uint8", ("batch", 8, 6, 3)),), (TensorSpec("embeds", "float32", ("batch", 4)),)
VARIANT = Variant("image", "fp8", "tensorrt", (FileEntry("image.fp8.tensorrt.onnx", "ab" * 32),), 19, *SPECS)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [("7.2", False), ("8.0", False), ("8.6", False), ("8.7", False), ("8.9", True), ("9.0", True), ("12.0", True)],
)
def test_which_gpus_have_it(capability: str, expected: bool) -> None:
    """Xavier, A100, RTX 30, Orin; RTX 40, H100, RTX 50."""
    assert has_fp8(capability) is expected


def test_the_sentence_names_what_is_missing_and_the_next_step() -> None:
    check_fp8(VARIANT, "NVIDIA L4", "8.9", "10.6.0")
    check_fp8(VARIANT, "NVIDIA L4", "8.9", "11.0.0.114")
    check_fp8(replace(VARIANT, precision="int8"), "Orin", "8.7", "10.3.0")
    with pytest.raises(BackendError, match=r"from compute capability 8\.9 on .* Orin has 8\.7: take a variant in fp16"):
        check_fp8(VARIANT, "Orin", "8.7", "11.4.0")
    with pytest.raises(BackendError, match=r"from 10\.6 on, and this is 10\.3\.0: update TensorRT"):
        check_fp8(VARIANT, "NVIDIA L4", "8.9", "10.3.0")


def test_an_orin_neither_opens_nor_builds_it(nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path) -> None:
    backend, builder = (import_module(f"clipedge.{name}") for name in ("backends.tensorrt", "engines.tensorrt_builder"))
    graph = tmp_path / "bundle" / "image.fp8.tensorrt.onnx"
    with pytest.raises(BackendError, match=r"and Orin has 8\.7"):
        backend.open_engine(graph, VARIANT, EngineOptions())
    with pytest.raises(BackendError, match=r"and Orin has 8\.7"):
        builder.compile_engine(graph, VARIANT, tmp_path, tmp_path / "times", lambda *step: None)
    assert not [name for name in nvidia.names() if name.startswith(("Builder", "Runtime"))]


def test_an_ada_builds_it_strongly_typed_where_tensorrt_is_new_enough(
    nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path
) -> None:
    trt = nvidia.tensorrt
    properties = type("Properties", (), {"name": b"NVIDIA L4", "major": 8, "minor": 9, "totalGlobalMem": 24 << 30})
    nvidia.answers["cudaGetDeviceProperties"] = lambda number: (properties,)
    nvidia.answers |= {"Builder.build_serialized_network": b"a plan", "ITimingCache.serialize": b"times"}
    tensors = {"pixels": "uint8", "embeds": "float32"}
    nvidia.answers |= {
        "ICudaEngine.num_io_tensors": len(tensors),
        "ICudaEngine.get_tensor_name": lambda index: list(tensors)[index],
        "ICudaEngine.get_tensor_dtype": lambda name: tensors[name],
        "nptype": import_module("numpy").dtype,
    }
    builder = import_module("clipedge.engines.tensorrt_builder")
    arguments = tmp_path / "image.fp8.tensorrt.onnx", VARIANT, tmp_path, tmp_path / "times", lambda *step: None
    if tuple(int(part) for part in trt.__version__.split(".")[:2]) < (10, 6):
        with pytest.raises(BackendError, match="update TensorRT"):
            builder.compile_engine(*arguments)
        return
    compiled = builder.compile_engine(*arguments)
    assert nvidia.of("Builder.create_network") == [
        {"flags": 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)}
    ]
    assert compiled.engine.arithmetic == "float8"


def test_onnx_runtimes_tensorrt_has_no_option_for_it(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"does not compile FP8 \(the image tower\): take the backend tensorrt"):
        provider.open_compiled(tmp_path / "image.fp8.tensorrt.onnx", VARIANT, EngineOptions(), tmp_path)
