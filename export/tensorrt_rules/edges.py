"""What a file declares of itself, and what goes in and comes out."""

from __future__ import annotations

from onnx import TensorProto

from clipedge.export.tensorrt_rules.facts import DYNAMIC, Broken, Facts, Rule, attribute, named

__all__ = ["RULES"]

DATA_TYPES = "https://docs.nvidia.com/deeplearning/tensorrt/api/python_api/infer/FoundationalTypes/DataType.html"
OPERATORS = "https://github.com/onnx/onnx-tensorrt/blob/10.1-GA/docs/operators.md"
VERSIONS = "https://github.com/onnx/onnx/blob/main/docs/Versioning.md"
DYNAMIC_SHAPES = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-dynamic-shapes.html"

# TensorRT 10 imports opsets 9 to 20 (11.x: to 25). Its parser is built with ONNX 1.16, whose IR version is 10.
OPSETS = range(9, 21)
IR_VERSIONS = range(3, 11)


def _opset(facts: Facts) -> Broken:
    if facts.opset not in OPSETS:
        yield "the file", f"it has opset {facts.opset}; TensorRT 10 imports {OPSETS.start} to {OPSETS.stop - 1}"


def _ir_version(facts: Facts) -> Broken:
    if facts.ir_version not in IR_VERSIONS:
        yield "the file", f"it has IR version {facts.ir_version}; ONNX 1.16 reads up to {IR_VERSIONS.stop - 1}"


def _batch(facts: Facts) -> Broken:
    """One profile, of the batch alone, serves every input."""
    for name in facts.inputs:
        shape = facts.shapes.get(name, ())
        if shape[:1] != (DYNAMIC,) or DYNAMIC in shape[1:]:
            sizes = ", ".join("?" if size == DYNAMIC else str(size) for size in shape)
            yield name, f"the input is ({sizes}); its first dimension has to be dynamic, and no other one"


def _uint8(facts: Facts) -> Broken:
    for tensor, kind in facts.types.items():
        if kind != TensorProto.UINT8 or tensor in facts.constants or tensor in facts.outputs:
            continue
        if facts.producer(tensor, "QuantizeLinear"):
            continue  # rule "quantized-type"
        if tensor not in facts.inputs:
            yield named(facts.producers[tensor]), f"{tensor} is uint8 between two nodes; only inputs and outputs may be"
        for node in facts.readers.get(tensor, ()):
            if node.op_type != "Cast" or attribute(node, "to", 0) not in (TensorProto.FLOAT, TensorProto.FLOAT16):
                yield named(node), f"{node.op_type} reads {tensor}, which is uint8; only a Cast to a float may"


RULES = (
    Rule("opset", "the opset is one that the parser imports", OPERATORS, _opset),
    Rule("ir-version", "the IR version is one that the parser's ONNX reads", VERSIONS, _ir_version),
    Rule("batch", "of every input the batch is dynamic, and nothing else", DYNAMIC_SHAPES, _batch),
    Rule("uint8", "uint8 is there only as input or output, and cast to a float before all else", DATA_TYPES, _uint8),
)
