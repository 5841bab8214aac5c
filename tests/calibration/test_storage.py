"""Graphs whose weights lie beside them: the same graph, in every engine, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from clipedge.calibration import storage
from clipedge.calibration.storage import cpu_session, save_model, without_constants


@pytest.fixture
def nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_INLINE_BYTES", 1000)
    monkeypatch.setattr(storage, "MAX_SESSION_BYTES", 1000)


def embeds(session: object, inputs: dict[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = session.run(None, inputs)[0]  # type: ignore[attr-defined]
    return found


@pytest.mark.usefixtures("nothing_fits")
def test_weights_beside_the_graph_are_the_same_weights(
    tiny_tower: onnx.ModelProto, tiny_inputs: dict[str, npt.NDArray[np.generic]], tmp_path: Path
) -> None:
    assert save_model(tiny_tower, tmp_path / "graph.onnx") == ["graph.onnx", "graph.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "graph.onnx"), full_check=True)
    inline = onnx.load(tmp_path / "graph.onnx", load_external_data=False)
    assert (tmp_path / "graph.onnx").stat().st_size < 0.5 * (tmp_path / "graph.onnx.data").stat().st_size
    places = [item.external_data for item in inline.graph.initializer if item.external_data]
    offsets = [int(entry.value) for place in places for entry in place if entry.key == "offset"]
    assert len(offsets) > 10 and all(offset % 64 == 0 for offset in offsets)
    loaded = onnx.load(tmp_path / "graph.onnx")
    assert {item.name: item.raw_data for item in loaded.graph.initializer} == {
        item.name: item.raw_data for item in tiny_tower.graph.initializer
    }
    engines = [onnx_runtime(tmp_path / "graph.onnx"), cpu_session(tiny_tower)]
    expected = embeds(in_memory(tiny_tower), tiny_inputs)
    for engine in engines:
        np.testing.assert_array_equal(embeds(engine, tiny_inputs), expected)


def onnx_runtime(path: Path) -> object:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def in_memory(model: onnx.ModelProto) -> object:
    import onnxruntime

    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_a_graph_that_fits_is_one_file(tiny_tower: onnx.ModelProto, tmp_path: Path) -> None:
    assert save_model(tiny_tower, tmp_path / "graph.onnx") == ["graph.onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]


@pytest.mark.usefixtures("nothing_fits")
def test_a_session_returns_inner_tensors_and_leaves_no_files(
    tiny_tower: onnx.ModelProto,
    tiny_inputs: dict[str, npt.NDArray[np.generic]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    inner = next(node.output[0] for node in tiny_tower.graph.node if node.op_type == "LayerNormalization")
    session = cpu_session(tiny_tower, [inner])
    assert [item.name for item in session.get_outputs()] == [tiny_tower.graph.output[0].name, inner]
    assert not list(tmp_path.iterdir())
    assert np.isfinite(session.run([inner], tiny_inputs)[0]).all()


def test_a_model_without_its_constants_is_small_and_the_original_whole(tiny_tower: onnx.ModelProto) -> None:
    before = tiny_tower.SerializeToString(deterministic=True)
    bare = without_constants(tiny_tower)
    assert not bare.graph.initializer and list(bare.graph.node) == list(tiny_tower.graph.node)
    assert bare.ir_version == tiny_tower.ir_version and bare.opset_import == tiny_tower.opset_import
    assert tiny_tower.SerializeToString(deterministic=True) == before
