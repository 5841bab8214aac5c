"""torch -> ONNX by tracing: for towers whose modules are another library's.

torch's own exporter does it (``torch.onnx.export`` with ``dynamo=True``, which needs onnxscript). What it writes is a
standard graph, with the batch as its one dynamic dimension; ``clipedge.export.graphs.traced`` brings it into the form
of the graphs that ClipEdge builds itself.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator

import onnx
import torch
import torch.nn.functional as F
from torch import nn

from clipedge.errors import CheckpointError, MissingDependencyError
from clipedge.export.graphs.nodes import OPSET
from clipedge.export.towers.text import HIDDEN

__all__ = ["trace"]


def trace(module: nn.Module, example: torch.Tensor, input_name: str, output_name: str) -> onnx.ModelProto:
    """The graph of ``module``, a function of one tensor, whose first dimension is the batch.

    ``example`` is an input of two samples: a batch of one would be taken for a constant. Raises CheckpointError when
    the module does something that a graph cannot, MissingDependencyError without onnxscript.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "the graph of this model is traced, which needs onnxscript: pip install onnxscript"
        ) from None
    try:
        with _plain_attention(), _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                input_names=[input_name],
                output_names=[output_name],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise CheckpointError(
            f"the {output_name.partition('_')[0]} tower cannot be traced into a graph ({reason}); ClipEdge does not "
            "export this architecture"
        ) from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Have attention computed by products and a softmax, which become one node each.

    Fused attention is written down as twenty nodes that compute shapes and guard against rows without any token.
    """
    fused = F.scaled_dot_product_attention
    fast_path = torch.backends.mha.get_fastpath_enabled()
    F.scaled_dot_product_attention = _attention
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """``torch.nn.functional.scaled_dot_product_attention`` as its documentation defines it, without dropout."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        added = torch.where(attn_mask, 0.0, HIDDEN) if attn_mask.dtype == torch.bool else attn_mask
        scores = scores + added.to(scores.dtype)
    return scores.softmax(dim=-1) @ value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports on itself and on operators of torchvision; nothing of that is for a user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
