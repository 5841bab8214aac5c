"""ONNX Runtime with its default session options, on the traced graph or on what optimum made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from engines import Embeddings, Engine, peer_engine

FILES = {"fp32": "traced", "dynamic": "ort-dynamic", "static": "ort-static"}


def open_engine(folder: Path, model: str) -> Engine:
    """Load one of ``FILES``."""
    path = folder / FILES[model] / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def embed(pixel_values: npt.NDArray[np.float32]) -> Embeddings:
        embeds: Embeddings = session.run(["image_embeds"], {"pixel_values": pixel_values})[0]
        return embeds

    return peer_engine(folder, embed, f"onnxruntime {onnxruntime.__version__}, default session options")
