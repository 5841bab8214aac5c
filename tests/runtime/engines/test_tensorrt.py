"""TensorRT's builder and backend, against stand-ins with the names and parameters of each published version."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipedge.errors import BackendError
from clipedge.manifest import FileEntry, TensorSpec, Variant

Nvidia = Any  # conftest.Nvidia
PIXELS, EMBEDS = TensorSpec("pixels", "uint8", ("batch", 8, 6, 3)), TensorSpec("embeds", "float32", ("batch", 4))
VARIANT = Variant(
    "image", "fp16", "tensorrt", (FileEntry("image.fp16.tensorrt.onnx", "ab" * 32),), 19, (PIXELS,), (EMBEDS,)
)


def nothing(*_: object) -> None:
    pass


def name_tensors(nvidia: Nvidia, dtypes: dict[str, str] | None = None) -> None:
    """What an engine of ``VARIANT`` says about its tensors."""
    tensors = {"pixels": "uint8", "embeds": "float32"} if dtypes is None else dtypes
    nvidia.answers |= {
        "ICudaEngine.num_io_tensors": len(tensors),
        "ICudaEngine.get_tensor_name": lambda index: list(tensors)[index],
        "ICudaEngine.get_tensor_dtype": lambda name: tensors[name],
        "nptype": np.dtype,
    }


@pytest.fixture
def engine(nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path) -> Any:
    name_tensors(nvidia)
    backend = import_module("clipedge.backends.tensorrt")
    (tmp_path / "engine.plan").write_bytes(b"plan")
    return backend.TensorRtEngine(tmp_path / "engine.plan", VARIANT, backend.gpu())


def test_a_call_copies_in_runs_and_copies_out(nvidia: Nvidia, memory: dict[int, Any], engine: Any) -> None:
    seen: list[np.ndarray] = []
    addresses = {call["name"]: call["memory"] for call in nvidia.of("IExecutionContext.set_tensor_address")}
    expected = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)

    def execute(stream_handle: int) -> bool:
        assert stream_handle == 7
        seen.append(memory[addresses["pixels"]][: 3 * 144].reshape(3, 8, 6, 3).copy())
        memory[addresses["embeds"]][: expected.nbytes] = np.frombuffer(expected.tobytes(), np.uint8)
        return True

    nvidia.answers["IExecutionContext.execute_async_v3"] = execute
    nvidia.calls.clear()
    batch = np.random.default_rng(1).integers(0, 256, (3, 8, 6, 3), np.uint8)
    found = engine(batch)
    np.testing.assert_array_equal(seen, [batch])
    np.testing.assert_array_equal(found, expected)
    assert nvidia.names() == [
        "cudaMemcpyAsync",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.execute_async_v3",
        "cudaMemcpyAsync",
        "cudaStreamSynchronize",
    ]
    assert nvidia.of("IExecutionContext.set_input_shape") == [{"name": "pixels", "shape": (3, 8, 6, 3)}]
    kept = found.copy()
    expected[:] = 0
    engine(batch)
    np.testing.assert_array_equal(found, kept, err_msg="a later call wrote into an earlier one's result")


def test_more_inputs_than_the_engine_takes_go_in_pieces(nvidia: Nvidia, engine: Any) -> None:
    found = engine(np.zeros((35, 8, 6, 3), np.uint8))
    assert found.shape == (35, 4)
    shapes = [call["shape"][0] for call in nvidia.of("IExecutionContext.set_input_shape")]
    assert shapes == [16, 16, 3]


def test_memory_is_taken_once_and_given_back(nvidia: Nvidia, engine: Any, tmp_path: Path) -> None:
    taken = nvidia.names().count("cudaMalloc"), nvidia.names().count("cudaMallocHost")
    assert taken == (2, 2)
    assert sorted(call[next(iter(call))] for call in nvidia.of("cudaMalloc")) == [16 * 4 * 4, 16 * 144]
    name_tensors(nvidia)
    backend = import_module("clipedge.backends.tensorrt")
    nvidia.calls.clear()
    other = backend.TensorRtEngine(tmp_path / "engine.plan", VARIANT, backend.gpu())
    other(np.zeros((1, 8, 6, 3), np.uint8))
    del other
    assert [nvidia.names().count(name) for name in ("cudaFree", "cudaFreeHost", "cudaStreamDestroy")] == [2, 2, 1]


def test_it_says_what_it_runs_on(engine: Any, nvidia: Nvidia) -> None:
    facts = engine.name, engine.device, engine.version, engine.arithmetic
    assert facts == ("tensorrt", "Orin, compute capability 8.7", nvidia.tensorrt.__version__, "float16")


@pytest.mark.parametrize(
    "wrong",
    [{}, {"pixels": "uint8"}, {"pixels": "float32", "embeds": "float32"}, {"pixels": "uint8", "embeds": "float16"}],
)
def test_an_engine_with_other_tensors_is_refused(
    nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path, wrong: dict[str, str]
) -> None:
    name_tensors(nvidia, wrong)
    backend = import_module("clipedge.backends.tensorrt")
    (tmp_path / "engine.plan").write_bytes(b"plan")
    with pytest.raises(BackendError, match=r"has the tensors .*, expected .*: run `clipedge build` again"):
        backend.TensorRtEngine(tmp_path / "engine.plan", VARIANT, backend.gpu())


@pytest.mark.parametrize(
    ("call", "answer", "message"),
    [
        ("Runtime.deserialize_cuda_engine", None, "cannot read the engine"),
        ("ICudaEngine.create_execution_context", None, "cannot run the engine"),
        ("IExecutionContext.set_tensor_address", False, "refuses memory for pixels"),
    ],
)
def test_what_tensorrt_refuses_is_an_error_with_its_reason(
    nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path, call: str, answer: object, message: str
) -> None:
    name_tensors(nvidia)
    backend = import_module("clipedge.backends.tensorrt")
    (tmp_path / "engine.plan").write_bytes(b"plan")

    def refuse(**_: Any) -> object:
        log = nvidia.of("Runtime.__init__")[0]["logger"]
        log.log(nvidia.tensorrt.ILogger.Severity.WARNING, "a warning")
        log.log(nvidia.tensorrt.ILogger.Severity.ERROR, "the plan is of\n another version")
        log.log(nvidia.tensorrt.ILogger.Severity.ERROR, "so it goes on")
        return answer

    nvidia.answers[call] = refuse
    with pytest.raises(BackendError, match=rf"{message} of the image tower: the plan is of another version; "):
        backend.TensorRtEngine(tmp_path / "engine.plan", VARIANT, backend.gpu())


@pytest.mark.parametrize("call", ["set_input_shape", "execute_async_v3"])
def test_a_call_that_fails_is_an_error(nvidia: Nvidia, engine: Any, call: str) -> None:
    nvidia.answers[f"IExecutionContext.{call}"] = False
    with pytest.raises(BackendError, match="of the image tower: it gives no reason"):
        engine(np.zeros((1, 8, 6, 3), np.uint8))


def test_an_error_of_cuda_is_named(nvidia: Nvidia, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error = nvidia.cuda.cudaError_t.cudaErrorIllegalAddress
    monkeypatch.setattr(nvidia.cuda, "cudaStreamSynchronize", lambda stream: (error,))
    with pytest.raises(BackendError, match="CUDA failed with cudaErrorIllegalAddress"):
        engine(np.zeros((1, 8, 6, 3), np.uint8))


def test_without_a_gpu_the_sentence_names_the_next_step(nvidia: Nvidia, monkeypatch: pytest.MonkeyPatch) -> None:
    error = nvidia.cuda.cudaError_t.cudaErrorNoDevice
    monkeypatch.setattr(nvidia.cuda, "cudaGetDevice", lambda: (error, 0))
    backend = import_module("clipedge.backends.tensorrt")
    with pytest.raises(BackendError, match=r"no NVIDIA GPU .*cudaErrorNoDevice.*: check that `nvidia-smi` shows one"):
        backend.open_engine(Path("bundle/image.fp16.tensorrt.onnx"), VARIANT, None)


def test_load_builds_nothing(nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path) -> None:
    backend = import_module("clipedge.backends.tensorrt")
    with pytest.raises(BackendError, match=r"no engine was built yet for image.* on tensorrt: run `clipedge build"):
        backend.open_engine(tmp_path / "bundle" / "image.fp16.tensorrt.onnx", VARIANT, None)
    assert not [name for name in nvidia.names() if name.startswith("Builder")]


def build(nvidia: Nvidia, tmp_path: Path, progress: Any = nothing) -> Any:
    name_tensors(nvidia)
    nvidia.answers |= {"Builder.build_serialized_network": b"a plan", "ITimingCache.serialize": b"times"}
    builder = import_module("clipedge.engines.tensorrt_builder")
    (tmp_path / "work").mkdir(exist_ok=True)
    return builder.compile_engine(
        tmp_path / "image.fp16.tensorrt.onnx", VARIANT, tmp_path / "work", tmp_path / "times", progress
    )


def test_a_build_from_onnx_to_plan(nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path) -> None:
    nvidia.answers["OnnxParser.parse_from_file"] = True
    compiled = build(nvidia, tmp_path)
    trt = nvidia.tensorrt
    (network,) = nvidia.of("Builder.create_network")
    assert network == {"flags": 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)}
    assert nvidia.of("OnnxParser.parse_from_file")[0]["model"] == str(tmp_path / "image.fp16.tensorrt.onnx")
    (limit,) = nvidia.of("IBuilderConfig.set_memory_pool_limit")
    assert list(limit.values()) == [trt.MemoryPoolType.WORKSPACE, 1 << 30]
    (shapes,) = nvidia.of("IOptimizationProfile.set_shape")
    assert list(shapes.values()) == ["pixels", (1, 8, 6, 3), (1, 8, 6, 3), (16, 8, 6, 3)]
    assert nvidia.of("IBuilderConfig.clear_flag") == [{"flag": trt.BuilderFlag.TF32}]
    assert (tmp_path / "work" / "engine.plan").read_bytes() == b"a plan"
    assert (tmp_path / "times").read_bytes() == b"times"
    assert compiled.made_for["gpu"] == "Orin"
    assert compiled.made_for["tensorrt"] == ".".join(trt.__version__.split(".")[:3])
    assert compiled.engine.name == "tensorrt"


def test_kernels_times_are_used_again(nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path) -> None:
    for _ in range(2):
        build(nvidia, tmp_path)
    assert [next(iter(call.values())) for call in nvidia.of("IBuilderConfig.create_timing_cache")] == [b"", b"times"]


@pytest.mark.parametrize(
    ("refusal", "tried"),
    [
        (
            {
                "IBuilderConfig.create_timing_cache": lambda serialized_timing_cache: (
                    serialized_timing_cache == b"" or None
                )
            },
            [b"old", b""],
        ),
        ({"IBuilderConfig.set_timing_cache": lambda cache, ignore_mismatch: False}, [b"old", b""]),
        ({"IBuilderConfig.get_timing_cache": None}, [b"old"]),
    ],
    ids=["damaged", "of another version", "none kept"],
)
def test_times_that_cannot_be_used_stop_no_build(
    nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path, refusal: dict[str, Any], tried: list[bytes]
) -> None:
    (tmp_path / "times").write_bytes(b"old")
    nvidia.answers |= refusal
    if "IBuilderConfig.create_timing_cache" in refusal:
        nvidia.answers["IBuilderConfig.get_timing_cache"] = None
    build(nvidia, tmp_path)
    assert [next(iter(call.values())) for call in nvidia.of("IBuilderConfig.create_timing_cache")] == tried
    assert (tmp_path / "work" / "engine.plan").read_bytes() == b"a plan"


def test_progress_reaches_the_caller(nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build(nvidia, tmp_path, lambda *step: told.append(step))
    (monitor,) = [call["value"] for call in nvidia.of("IBuilderConfig.progress_monitor")]
    monitor.phase_start("Tactics", None, 12)
    assert monitor.step_complete("Tactics", 3) is True
    monitor.phase_finish("Tactics")
    assert told == [("Tactics", 3, 12)]


def test_a_graph_that_the_parser_refuses(nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path) -> None:
    nvidia.answers |= {
        "OnnxParser.parse_from_file": False,
        "OnnxParser.num_errors": 2,
        "ParserError.desc": "no such operator",
    }
    with pytest.raises(BackendError, match=r"cannot build an engine of image.*: no such operator; export the bundle"):
        build(nvidia, tmp_path)


def test_a_network_that_cannot_be_built(nvidia: Nvidia, memory: dict[int, Any], tmp_path: Path) -> None:
    name_tensors(nvidia)
    builder = import_module("clipedge.engines.tensorrt_builder")
    nvidia.answers["Builder.build_serialized_network"] = None
    with pytest.raises(BackendError, match=r"cannot build an engine of image.*: it gives no reason"):
        builder.compile_engine(tmp_path / "image.onnx", VARIANT, tmp_path, tmp_path / "times", nothing)
    assert not (tmp_path / "engine.plan").exists()
