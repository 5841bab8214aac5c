"""Make the peers' models from the same checkpoint and the same calibration pictures, by their own documented tools.

    PEERS-PYTHON benchmarks/prepare_peers.py ViT-B/32 [ViT-B/16 ...]

Runs in the peers' environment. What is there already is kept.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from engines.processor import load_processor, pixel_values
from layout import BUILD, PICTURES, model_folder
from machine import cpu_flags

OPSET = 18
MODEL = "model.onnx"


def make_once(target: Path, make: Callable[[Path], None]) -> None:
    """Call ``make`` with an empty folder and rename that to ``target``, which so is complete or missing."""
    if target.exists():
        return
    print(f"making {target.relative_to(BUILD)}", file=sys.stderr, flush=True)
    partial = target.with_name(f"partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    make(partial)
    partial.rename(target)


def trace(checkpoint: Path, output: Path) -> None:
    """torch -> ONNX by tracing, as optimum's exporter does it: float ``pixel_values`` in, ``image_embeds`` out.

    Optimum 2.1 has no configuration for CLIP's image tower with its projection, so PyTorch's exporter is called here.
    """
    import torch
    from transformers import CLIPVisionModelWithProjection

    class ImageEmbeds(torch.nn.Module):
        def __init__(self, tower: torch.nn.Module) -> None:
            super().__init__()
            self.tower = tower

        def forward(self, pixel_values: torch.Tensor) -> Any:
            return self.tower(pixel_values=pixel_values).image_embeds

    tower = CLIPVisionModelWithProjection.from_pretrained(checkpoint, dtype=torch.float32).eval()
    size = tower.config.image_size
    torch.onnx.export(
        ImageEmbeds(tower),
        (torch.zeros(2, 3, size, size),),
        str(output / MODEL),
        input_names=["pixel_values"],
        output_names=["image_embeds"],
        dynamic_axes={"pixel_values": {0: "batch"}, "image_embeds": {0: "batch"}},
        opset_version=OPSET,
        do_constant_folding=True,
        dynamo=False,
    )
    onnx.checker.check_model(str(output / MODEL))


def calibration_batches(checkpoint: Path) -> list[npt.NDArray[np.float32]]:
    """The calibration pictures as (1, 3, H, W) ``pixel_values``."""
    processor = load_processor(checkpoint)
    return [pixel_values(processor, [path]) for path in sorted((PICTURES / "calibration").glob("*.png"))]


def quantization_config(*, static: bool) -> Any:
    """Optimum's own choice for this processor, which is named after the instruction set that it is made for."""
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    flags = cpu_flags()
    if "avx512_vnni" in flags or "avx_vnni" in flags:
        return AutoQuantizationConfig.avx512_vnni(is_static=static, per_channel=False)
    if "avx512f" in flags:
        return AutoQuantizationConfig.avx512(is_static=static, per_channel=False)
    return AutoQuantizationConfig.avx2(is_static=static, per_channel=False)


def quantize_with_optimum(traced: Path, batches: list[npt.NDArray[np.float32]] | None, output: Path) -> None:
    """ORTQuantizer: static with min-max calibration where ``batches`` are given, else dynamic."""
    from onnxruntime.quantization import CalibrationMethod
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import CalibrationConfig

    config = quantization_config(static=batches is not None)
    quantizer = ORTQuantizer.from_pretrained(traced, file_name=MODEL)
    ranges = None
    if batches is not None:
        # What AutoCalibrationConfig.minmax makes of a `datasets.Dataset`, for pictures that are in memory.
        calibration = CalibrationConfig("scenes", "", "calibration", len(batches), CalibrationMethod.MinMax)
        ranges = quantizer.fit(
            [{"pixel_values": batch[0]} for batch in batches],
            calibration,
            onnx_augmented_model_name=output / "augmented.onnx",
            operators_to_quantize=config.operators_to_quantize,
        )
        (output / "augmented.onnx").unlink()
    quantizer.quantize(config, output, calibration_tensors_range=ranges, file_suffix=None)


def quantize_with_nncf(traced: Path, batches: list[npt.NDArray[np.float32]], output: Path) -> None:
    """nncf.quantize as OpenVINO documents it for transformers: SmoothQuant and bias correction included."""
    import nncf
    import openvino

    samples = nncf.Dataset([{"pixel_values": batch} for batch in batches])
    model = openvino.Core().read_model(traced / MODEL)
    quantized = nncf.quantize(model, samples, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches))
    openvino.save_model(quantized, output / "model.xml", compress_to_fp16=False)


def prepare(folder: Path) -> None:
    """Make every peer's model in a shape's folder."""
    checkpoint, traced = folder / "checkpoint", folder / "traced"
    make_once(traced, lambda output: trace(checkpoint, output))
    make_once(folder / "ort-dynamic", lambda output: quantize_with_optimum(traced, None, output))
    batches = calibration_batches(checkpoint)
    make_once(folder / "ort-static", lambda output: quantize_with_optimum(traced, batches, output))
    make_once(folder / "openvino-nncf", lambda output: quantize_with_nncf(traced, batches, output))


if __name__ == "__main__":
    for shape in sys.argv[1:]:
        prepare(model_folder(shape))
