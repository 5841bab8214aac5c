"""Observation: exact extremes, a fair sample of rows, and memory that does not grow with the data."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clipedge.calibration import observe as module
from clipedge.calibration.observe import ROWS, observe
from clipedge.calibration.patches import Patches
from clipedge.errors import CheckpointError, UsageError

TOKENS, CHANNELS = 5, 16


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """x (batch, 5, 16) -> every token below each other in ``flat`` (batch * 5, 16), the second alone in ``pooled``."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("Gather", ["x", "second"], ["pooled"], axis=1),
        helper.make_node("Relu", ["flat"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", TOKENS, CHANNELS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", CHANNELS])],
        [
            numpy_helper.from_array(np.array([-1, CHANNELS]), "shape"),
            numpy_helper.from_array(np.array(1), "second"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def alike(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.ones(batch.shape[:2])


def second_as_much_as_all(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    weights = alike(batch)
    weights[:, 1] = TOKENS - 1
    return weights


def numbered(samples: int) -> npt.NDArray[np.float32]:
    """Random values, but channel 0 is the sample's number and channel 1 the token's."""
    x = np.random.default_rng(0).standard_cauchy((samples, TOKENS, CHANNELS)).astype(np.float32)
    x[..., 0] = np.arange(samples)[:, None]
    x[..., 1] = np.arange(TOKENS)
    return x


def test_extremes_are_exact_and_rows_are_the_datas(model: onnx.ModelProto) -> None:
    x = numbered(1000)
    seen = observe(model, ["flat", "pooled"], np.array_split(x, 13), alike)
    for name, values in (("flat", x.reshape(-1, CHANNELS)), ("pooled", x[:, 1])):
        np.testing.assert_array_equal(seen[name].low, values.min(axis=0))
        np.testing.assert_array_equal(seen[name].high, values.max(axis=0))
        rows = seen[name].rows
        assert rows.shape == (ROWS, CHANNELS) and rows.dtype == np.float32
        places = rows[:, :2].astype(int)
        assert len(np.unique(places, axis=0)) == ROWS, "no row twice"
        np.testing.assert_array_equal(rows, x[places[:, 0], places[:, 1]])
    assert (seen["flat"].tokens, seen["pooled"].tokens) == (TOKENS, 1)
    assert set(seen["pooled"].rows[:, 1]) == {1}


def test_few_rows_are_all_kept(model: onnx.ModelProto) -> None:
    x = numbered(7)
    rows = observe(model, ["flat"], [x[:4], x[4:]], alike)["flat"].rows
    np.testing.assert_array_equal(np.sort(rows.ravel()), np.sort(x.ravel()))


def test_every_sample_has_the_same_chance_wherever_it_comes(model: onnx.ModelProto) -> None:
    rows = observe(model, ["flat"], np.array_split(numbered(4000), 100), alike)["flat"].rows
    quarters, _ = np.histogram(rows[:, 0], 4, (0, 4000))
    assert (np.abs(quarters - ROWS / 4) < 4 * np.sqrt(ROWS * 3 / 16)).all()  # four standard deviations
    tokens, _ = np.histogram(rows[:, 1], TOKENS, (0, TOKENS))
    assert (np.abs(tokens - ROWS / TOKENS) < 4 * np.sqrt(ROWS * 4 / 25)).all()


def test_the_pooled_token_is_half_of_the_sample(model: onnx.ModelProto) -> None:
    """Of many inputs, that is: of few, there are not that many pooled tokens."""
    rows = observe(model, ["flat"], np.array_split(numbered(8000), 40), second_as_much_as_all)["flat"].rows
    assert (rows[:, 1] == 1).mean() == pytest.approx(0.5, abs=0.09)


def test_tokens_without_weight_are_never_seen(model: onnx.ModelProto) -> None:
    """Not in the extremes either: padding may hold anything, even what is no number."""
    x = numbered(300)
    x[:, 3:, 2] = 1e9
    x[::2, 4, 3] = np.nan

    def weigh(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        weights = alike(batch)
        weights[:, 3:] = 0
        return weights

    seen = observe(model, ["flat", "pooled"], np.array_split(x, 7), weigh)
    np.testing.assert_array_equal(seen["flat"].high, x[:, :3].max(axis=(0, 1)))
    assert set(seen["flat"].rows[:, 1]) == {0, 1, 2}
    assert len(seen["pooled"].rows) == 300


def test_the_same_data_gives_the_same_sample_however_it_is_cut(model: onnx.ModelProto) -> None:
    x = numbered(500)
    first, second = (observe(model, ["flat"], np.array_split(x, parts), alike)["flat"].rows for parts in (3, 29))
    np.testing.assert_array_equal(first, second)


def test_memory_does_not_grow_with_the_data(model: onnx.ModelProto) -> None:
    def peak(batches: int) -> int:
        def stream() -> Iterator[npt.NDArray[np.float32]]:
            for seed in range(batches):
                yield np.random.default_rng(seed).normal(size=(64, TOKENS, CHANNELS)).astype(np.float32)

        tracemalloc.start()
        observe(model, ["flat", "pooled"], stream(), alike)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    assert peak(160) < 1.2 * peak(20)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(model: onnx.ModelProto, bad: float) -> None:
    x = numbered(4)
    x[3, 4, 5] = bad
    with pytest.raises(CheckpointError, match="flat has NaN or infinite values"):
        observe(model, ["flat"], [x[:2], x[2:]], alike)


def test_without_inputs_it_says_what_to_give(model: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="pictures"):
        observe(model, ["flat"], [], alike)


@pytest.fixture(scope="module")
def maps_model() -> onnx.ModelProto:
    """x (batch, 4, 10, 12) -> y, the same numbers as maps."""
    shape = ["batch", 4, 10, 12]
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["negated"]), helper.make_node("Neg", ["negated"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


KERNEL = Patches("negated", (3, 3), (1, 1), (1, 1, 1, 1))


def random_maps(samples: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(samples, 4, 10, 12)).astype(np.float32)


def one_token(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.ones((len(batch), 1))


def test_of_maps_extremes_are_exact_and_rows_are_patches_of_the_data(maps_model: onnx.ModelProto) -> None:
    x = random_maps(30)
    seen = observe(maps_model, [KERNEL, Patches("negated")], np.array_split(x, 4), one_token)
    for patches in (KERNEL, Patches("negated")):
        found = seen[patches]
        np.testing.assert_array_equal(found.low, -x.max(axis=(0, 2, 3)))
        np.testing.assert_array_equal(found.high, -x.min(axis=(0, 2, 3)))
        assert found.tokens == 120
        everything = {row.tobytes() for row in patches.cut(-x, np.arange(30 * 120))}
        rows = {row.tobytes() for row in found.rows}
        assert len(rows) == ROWS and rows <= everything


def test_all_positions_of_maps_have_the_same_chance(maps_model: onnx.ModelProto) -> None:
    x = random_maps(200)
    x[:, 0] = -np.arange(120).reshape(10, 12)
    rows = observe(maps_model, [Patches("negated")], np.array_split(x, 10), one_token)[Patches("negated")].rows
    quarters, _ = np.histogram(rows[:, 0], 4, (0, 120))
    assert (np.abs(quarters - ROWS / 4) < 4 * np.sqrt(ROWS * 3 / 16)).all()  # four standard deviations


def test_the_same_maps_give_the_same_sample_however_memory_cuts_them(
    maps_model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = random_maps(40)
    whole = observe(maps_model, [KERNEL], [x], one_token)[KERNEL].rows
    fed: list[int] = []

    def weigh(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        fed.append(len(batch))
        return one_token(batch)

    monkeypatch.setattr(module, "MAX_RETURNED_BYTES", 3 * x[0].nbytes + 1)
    np.testing.assert_array_equal(observe(maps_model, [KERNEL], np.array_split(x, 3), weigh)[KERNEL].rows, whole)
    assert max(fed) == 3 and sum(fed) == 40


def test_maps_that_are_no_numbers_are_refused(maps_model: onnx.ModelProto) -> None:
    x = random_maps(3)
    x[1, 2, 3, 4] = np.nan
    with pytest.raises(CheckpointError, match="negated has NaN or infinite values"):
        observe(maps_model, [KERNEL], [x], one_token)
