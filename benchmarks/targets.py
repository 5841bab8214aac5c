"""What the project promises of its speed, and whether a run keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layout import BATCHES, CONTENDERS, PATCH_SIZES, Runtime

SMALL = "ViT-B/32"
ORT_INT8, ORT_INT8_FAST, OPENVINO_INT8 = "clipedge-ort-int8", "clipedge-ort-int8-fast", "clipedge-openvino-int8"


@dataclass(frozen=True)
class Target:
    """``ours`` divided by the smallest of ``peers``, in ``figure``, is to be ``limit`` at most."""

    text: str
    shape: str
    figure: str
    ours: str
    peers: tuple[str, ...]
    limit: float


def peers_on(runtime: Runtime, *precisions: str) -> tuple[str, ...]:
    """The peers' names on one runtime."""
    return tuple(
        contender.name
        for contender in CONTENDERS
        if contender.kind == "peer" and contender.runtime == runtime and contender.precision in precisions
    )


def all_targets() -> tuple[Target, ...]:
    """In the order in which they are printed."""
    eager = ("transformers",)
    ort, openvino = peers_on("ONNX Runtime", "fp32", "int8"), peers_on("OpenVINO", "fp32", "int8")
    int8_peers = peers_on("ONNX Runtime", "int8")
    return (
        Target("ONNX Runtime, to its fastest INT8 peer", SMALL, "tensor_1_ms", ORT_INT8, int8_peers, 0.80),
        Target("OpenVINO, to NNCF INT8", SMALL, "tensor_1_ms", OPENVINO_INT8, peers_on("OpenVINO", "int8"), 0.90),
        Target("ONNX Runtime, to eager PyTorch", SMALL, "tensor_1_ms", ORT_INT8, eager, 0.30),
        *(
            Target(f"{runtime}, to its fastest peer", shape, f"tensor_{batch}_ms", ours, peers, 1.0)
            for shape in PATCH_SIZES
            for batch in BATCHES
            for runtime, ours, peers in (("ONNX Runtime", ORT_INT8, ort), ("OpenVINO", OPENVINO_INT8, openvino))
            if (shape, batch) != (SMALL, 1)  # that one has sharper targets above
        ),
        Target("JPEG to label, exact, to transformers", SMALL, "jpeg_1_ms", ORT_INT8, eager, 0.42),
        Target("JPEG to label, fast, to transformers", SMALL, "jpeg_1_ms", ORT_INT8_FAST, eager, 0.33),
        Target("cold start, to transformers", SMALL, "cold_start_ms", ORT_INT8, eager, 0.25),
    )


def judge(shapes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Hold each target of the measured ``shapes`` (figures by contender) against them.

    ``ratio``, ``fastest_peer`` and ``met`` are None where ClipEdge's side or a peer was not measured: the fastest of
    the others might be slower.
    """
    verdicts = []
    for target in all_targets():
        if target.shape not in shapes:
            continue
        found = shapes[target.shape]
        verdict: dict[str, Any] = {
            "text": target.text,
            "shape": target.shape,
            "figure": target.figure,
            "ours": target.ours,
            "limit": target.limit,
            "fastest_peer": None,
            "ratio": None,
            "met": None,
        }
        if all(name in found for name in (target.ours, *target.peers)):
            fastest = min(target.peers, key=lambda name: found[name][target.figure])
            ratio = found[target.ours][target.figure] / found[fastest][target.figure]
            verdict |= {"fastest_peer": fastest, "ratio": round(ratio, 4), "met": ratio <= target.limit}
        verdicts.append(verdict)
    return verdicts
