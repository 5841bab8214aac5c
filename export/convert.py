"""One tower of a checkpoint -> one ONNX file in the precision and for the target that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from clipedge.bundle import file_entry
from clipedge.calibration.observers import Histogram, Range, mse_range
from clipedge.calibration.quantize import PATCH_EMBED, SCHEMES, Scheme, linear_layers, quantize
from clipedge.calibration.ranges import observe
from clipedge.calibration.sensitivity import LayerCost, layer_costs
from clipedge.manifest import Precision, Target, TensorSpec, TowerName, Variant

__all__ = ["Conversion", "convert"]


@dataclass(frozen=True, eq=False)
class Conversion:
    """A tower's file, its manifest entry (not proven yet), and for INT8 a way to ask which layer costs what."""

    path: Path
    variant: Variant
    costs: Callable[[npt.NDArray[Any]], list[LayerCost]] | None


def convert(
    write_graph: Callable[[Path], None],
    folder: Path,
    tower: TowerName,
    precision: Precision,
    target: Target,
    calibration: Iterable[npt.NDArray[Any]],
    pixel_mean: Sequence[float] = (),
) -> Conversion:
    """Write a tower into ``folder``.

    ``write_graph`` writes the float32 graph to a path. ``calibration`` is a stream of input batches, read for INT8
    only. ``pixel_mean``: the mean of each channel in [0, 255] (image towers only).
    """
    if precision == "fp32":
        path = folder / f"{tower}.fp32.onnx"
        write_graph(path)
        return Conversion(path, _describe(path, tower, "fp32", "any"), None)
    float_path = folder / f"{tower}.float.onnx"
    write_graph(float_path)
    model = onnx.load(float_path)
    float_path.unlink()
    scheme = SCHEMES[target]
    ranges = calibrate(model, scheme, calibration)
    path = folder / f"{tower}.int8.{target}.onnx"
    onnx.save(quantize(model, ranges, scheme, pixel_mean), path)

    def costs(inputs: npt.NDArray[Any]) -> list[LayerCost]:
        return layer_costs(model, ranges, scheme, inputs, pixel_mean)

    return Conversion(path, _describe(path, tower, precision, target), costs)


def calibrate(model: onnx.ModelProto, scheme: Scheme, batches: Iterable[npt.NDArray[Any]]) -> Mapping[str, Range]:
    """The range of each linear layer's input, from what the float graph computes for the calibration inputs."""
    tensors = {layer.activation: None for layer in linear_layers(model) if layer.name != PATCH_EMBED}
    histograms: dict[str, Histogram] = observe(model, list(tensors), batches)
    return {name: mse_range(histogram, symmetric=scheme.symmetric) for name, histogram in histograms.items()}


def _describe(path: Path, tower: TowerName, precision: Precision, target: Target) -> Variant:
    model = onnx.load(path)
    return Variant(
        tower=tower,
        precision=precision,
        target=target,
        files=(file_entry(path.parent, path.name),),
        opset=next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx")),
        inputs=tuple(map(_tensor_spec, model.graph.input)),
        outputs=tuple(map(_tensor_spec, model.graph.output)),
    )


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(size.dim_param or size.dim_value for size in kind.shape.dim)
    return TensorSpec(value.name, str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))), shape)
