"""A tower in torch -> an ONNX graph, after the exact simplifications."""

from clipedge.export.graphs.transformers import write_image_graph, write_text_graph

__all__ = ["write_image_graph", "write_text_graph"]
