"""OpenVINO on the traced graph, in float32 or after NNCF's INT8 quantization; latency hint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino

from engines import Embeddings, Engine, peer_engine

FILES = {"fp32": "traced/model.onnx", "nncf": "openvino-nncf/model.xml"}


def open_engine(folder: Path, model: str) -> Engine:
    """Load one of ``FILES``."""
    settings = {"PERFORMANCE_HINT": "LATENCY"}
    if model == "fp32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"  # what its name says: newer processors would compute in bf16
    compiled = openvino.Core().compile_model(folder / FILES[model], "CPU", settings)
    request = compiled.create_infer_request()

    def embed(pixel_values: npt.NDArray[np.float32]) -> Embeddings:
        embeds: Embeddings = request.infer({0: pixel_values}, share_inputs=True)[0].copy()
        return embeds

    return peer_engine(folder, embed, f"openvino {openvino.__version__.split('-')[0]}, {settings}")
