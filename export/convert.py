"""One tower of a checkpoint -> one ONNX file in the precision and for the target that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from clipedge.bundle import file_entry
from clipedge.calibration.calibrate import Calibration
from clipedge.calibration.observe import WeighTokens
from clipedge.calibration.quantize import quantize
from clipedge.calibration.rounding import SCHEMES
from clipedge.calibration.storage import save_model
from clipedge.export.tensorrt_rules import require_tensorrt
from clipedge.manifest import Precision, Target, TensorSpec, TowerName, Variant

__all__ = ["SourceTower", "float_graph", "save_variant", "write_variant"]

Batches = Iterable[npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class SourceTower:
    """A tower of the source model, and what its conversion needs to know.

    ``write_graph`` writes the float32 graph to a path; ``weigh`` says how much each token of a batch of inputs matters
    (``clipedge.calibration.observe``); ``pixel_mean`` is the mean of each channel in [0, 255] that an image tower
    subtracts. ``calibration`` and ``proof`` are streams of input batches that can be read again and again.
    """

    name: TowerName
    module: torch.nn.Module
    write_graph: Callable[[Path], None]
    weigh: WeighTokens
    calibration: Batches
    proof: Batches
    pixel_mean: Sequence[float] = ()


def float_graph(tower: SourceTower, folder: Path) -> onnx.ModelProto:
    """The tower's float32 graph, in memory; ``folder`` is where it lies for a moment."""
    path = folder / f"{tower.name}.float.onnx"
    tower.write_graph(path)
    model = onnx.load(path)
    for file in folder.glob(f"{path.name}*"):  # and the weights beside it
        file.unlink()
    return model


def write_variant(
    tower: SourceTower,
    graph: onnx.ModelProto,
    folder: Path,
    precision: Precision,
    target: Target,
    calibration: Calibration | None,
    keep_float: Collection[str] = (),
) -> Variant:
    """Write a tower's graph in float32 or INT8 into ``folder`` and describe it for the manifest, not proven yet.

    INT8 needs a ``calibration`` for the target; the layers in ``keep_float`` stay in float. Raises BackendError for a
    graph for TensorRT that breaks its rules (``clipedge.export.tensorrt_rules``), in any precision.
    """
    described: Target = "any"
    written, name = graph, f"{tower.name}.fp32.onnx"
    if precision == "int8":
        assert calibration is not None
        described = target
        written = quantize(graph, calibration, SCHEMES[target], tower.pixel_mean, keep_float)
        name = f"{tower.name}.int8.{target}.onnx"
    if target == "tensorrt":
        require_tensorrt(written, name)
    return save_variant(tower, written, folder / name, precision, described)


def save_variant(
    tower: SourceTower, graph: onnx.ModelProto, path: Path, precision: Precision, target: Target
) -> Variant:
    """Write a finished graph of a tower, and describe it for the manifest, not proven yet."""
    return Variant(
        tower=tower.name,
        precision=precision,
        target=target,
        files=tuple(file_entry(path.parent, name) for name in save_model(graph, path)),
        opset=next(item.version for item in graph.opset_import if item.domain in ("", "ai.onnx")),
        inputs=tuple(map(_tensor_spec, graph.graph.input)),
        outputs=tuple(map(_tensor_spec, graph.graph.output)),
    )


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(size.dim_param or size.dim_value for size in kind.shape.dim)
    return TensorSpec(value.name, str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))), shape)
