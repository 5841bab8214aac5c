"""What is compared, and where its files lie. Standard library only: both environments import it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / "build" / "bench"
RESULTS = REPOSITORY / "benchmarks" / "results"
PICTURES = BUILD / "pictures"

# ViT-B's patch size is all that differs between the two.
PATCH_SIZES = {"ViT-B/32": 32, "ViT-B/16": 16}
BATCHES = (1, 8)
LABELS = 10
HELD_OUT = 32  # JPEGs of a camera's size on which the answers are compared; the first ones are also timed

Runtime = Literal["PyTorch", "ONNX Runtime", "OpenVINO"]


@dataclass(frozen=True)
class Contender:
    """One line of the table. ``environment`` is the virtual environment that it runs in; ``kind`` says whose it is."""

    name: str
    title: str
    runtime: Runtime
    precision: Literal["fp32", "int8"]
    environment: Literal["clipedge", "peers"]
    kind: Literal["peer", "clipedge"]
    from_tensor: bool = True  # False: measured from a JPEG only, as it differs from another line in nothing else


CONTENDERS = (
    Contender("transformers", "transformers, eager PyTorch", "PyTorch", "fp32", "peers", "peer"),
    Contender("ort-fp32", "ONNX Runtime, traced graph", "ONNX Runtime", "fp32", "peers", "peer"),
    Contender("ort-dynamic", "optimum-onnx dynamic INT8", "ONNX Runtime", "int8", "peers", "peer"),
    Contender("ort-static", "optimum-onnx static INT8", "ONNX Runtime", "int8", "peers", "peer"),
    Contender("openvino-fp32", "OpenVINO, traced graph", "OpenVINO", "fp32", "peers", "peer"),
    Contender("openvino-nncf", "OpenVINO, NNCF INT8", "OpenVINO", "int8", "peers", "peer"),
    Contender("clipedge-ort-fp32", "ClipEdge", "ONNX Runtime", "fp32", "clipedge", "clipedge"),
    Contender("clipedge-ort-int8", "ClipEdge INT8", "ONNX Runtime", "int8", "clipedge", "clipedge"),
    Contender(
        "clipedge-ort-int8-fast",
        "ClipEdge INT8, fast preprocessing",
        "ONNX Runtime",
        "int8",
        "clipedge",
        "clipedge",
        False,
    ),
    Contender("clipedge-openvino-fp32", "ClipEdge", "OpenVINO", "fp32", "clipedge", "clipedge"),
    Contender("clipedge-openvino-int8", "ClipEdge INT8", "OpenVINO", "int8", "clipedge", "clipedge"),
)


def contender_named(name: str) -> Contender:
    """One of ``CONTENDERS``."""
    return next(contender for contender in CONTENDERS if contender.name == name)


def model_folder(shape: str) -> Path:
    """Everything made for one of ``PATCH_SIZES``: the checkpoint, the peers' graphs and ClipEdge's bundles."""
    return BUILD / shape.lower().replace("/", "-")


def held_out_pictures() -> list[Path]:
    """The JPEGs that are timed and compared, in order."""
    return sorted((PICTURES / "held-out").glob("*.jpg"))
