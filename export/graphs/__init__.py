"""A tower in torch -> an ONNX graph, after the exact simplifications."""

from __future__ import annotations

import os

from clipedge.export.graphs.dense import write_dense_graph
from clipedge.export.graphs.fastvit import write_fastvit_graph
from clipedge.export.graphs.resnet import write_resnet_graph
from clipedge.export.graphs.traced import write_traced_graph
from clipedge.export.graphs.transformers import write_text_graph as write_transformer_graph
from clipedge.export.graphs.transformers import write_vit_graph
from clipedge.export.towers import (
    AnyImageTower,
    AnyTextTower,
    FastVitTower,
    ResNetTower,
    TracedImageTower,
    TracedTextTower,
)

__all__ = ["write_dense_graph", "write_image_graph", "write_text_graph"]


def write_image_graph(tower: AnyImageTower, path: str | os.PathLike[str]) -> None:
    """Write ``pixels`` uint8 (batch, H, W, 3) RGB -> ``image_embeds`` float32 (batch, D), L2-normalised.

    ``tower`` is the reference tower; it is simplified on the way and left as it is.
    """
    if isinstance(tower, ResNetTower):
        write_resnet_graph(tower, path)
    elif isinstance(tower, FastVitTower):
        write_fastvit_graph(tower, path)
    elif isinstance(tower, TracedImageTower):
        write_traced_graph(tower, path)
    else:
        write_vit_graph(tower, path)


def write_text_graph(tower: AnyTextTower, path: str | os.PathLike[str]) -> None:
    """Write ``input_ids`` int64 (batch, context length) -> ``text_embeds`` float32 (batch, D), L2-normalised.

    ``tower`` is the reference tower; it is simplified on the way and left as it is.
    """
    if isinstance(tower, TracedTextTower):
        write_traced_graph(tower, path)
    else:
        write_transformer_graph(tower, path)
