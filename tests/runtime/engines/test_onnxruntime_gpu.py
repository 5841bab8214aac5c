"""What ONNX Runtime's providers on a GPU are told. (That they run or raise: test_without_nvidia.py.)"""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from clipedge.backends import EngineOptions
from clipedge.backends import onnxruntime_tensorrt as provider
from clipedge.errors import BackendError
from clipedge.manifest import FileEntry, TensorSpec, Variant

SPECS = (TensorSpec("pixels", "uint8", ("batch", 8, 6, 3)),), (TensorSpec("image_embeds", "float32", ("batch", 4)),)
VARIANT = Variant("image", "fp16", "tensorrt", (FileEntry("image.fp16.tensorrt.onnx", "ab" * 32),), 19, *SPECS)


def test_one_engine_serves_every_batch() -> None:
    options = provider.provider_options(VARIANT, Path("engines/one"))
    shapes = [options[f"trt_profile_{which}_shapes"] for which in ("min", "opt", "max")]
    assert shapes == ["pixels:1x8x6x3", "pixels:1x8x6x3", "pixels:16x8x6x3"]
    assert (options["trt_engine_cache_enable"], options["trt_engine_cache_path"]) == ("True", "engines/one")


def test_an_engine_belongs_to_one_version_of_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    here = provider.our_facts(VARIANT)
    assert here["onnxruntime"] == onnxruntime.__version__
    monkeypatch.setattr(onnxruntime, "__version__", "9.9.9")
    assert provider.our_facts(VARIANT) == here | {"onnxruntime": "9.9.9"}


def test_load_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the provider is there and an engine is not, the sentence names the command and no session is made."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider.TENSORRT.title])
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    with pytest.raises(
        BackendError, match=r"no engine was built yet .*: run `clipedge build .* --backend onnxruntime-t"
    ):
        provider.open_engine(tmp_path / "bundle" / "image.fp16.tensorrt.onnx", VARIANT, EngineOptions())
