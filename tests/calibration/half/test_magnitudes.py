"""How large tensors become, against all of their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from clipedge.calibration.half.magnitudes import magnitudes
from clipedge.calibration.half.tensors import float_tensors
from clipedge.errors import CheckpointError, UsageError


def test_they_are_the_largest_of_all_inputs(family: Any) -> None:
    inputs = family.inputs[:2]
    values = ReferenceEvaluator(family.model).run(None, {family.model.graph.input[0].name: inputs}, intermediate=True)
    expected = {
        name: float(np.abs(values[name]).max())
        for node in family.model.graph.node
        for name in node.output
        if values[name].dtype == np.float32
    }
    found = magnitudes(family.model, [inputs[:1], inputs[1:]])
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-3, atol=1e-5)


def test_constants_and_inputs_are_float_tensors_too(family: Any) -> None:
    floats = float_tensors(family.model)
    constants = {
        item.name for item in family.model.graph.initializer if numpy_helper.to_array(item).dtype == np.float32
    }
    assert constants <= floats and family.model.graph.input[0].name not in floats


def test_without_inputs_nothing_is_known(demo: Any) -> None:
    with pytest.raises(UsageError, match="the range check got no inputs"):
        magnitudes(demo.model, [])


def test_a_model_that_overflows_in_float32_is_refused(demo: Any) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(demo.model)
    for item in model.graph.initializer:
        if item.name == "blocks.1.fc2.weight":
            item.CopyFrom(numpy_helper.from_array(1e38 * numpy_helper.to_array(item), item.name))
    with pytest.raises(CheckpointError, match="the model is unsound"):
        magnitudes(model, [demo.inputs[:2]])
