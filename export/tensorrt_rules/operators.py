"""Which operators TensorRT's ONNX parser imports, and of which types.

The table is that of TensorRT 10.1, the oldest version that is served (JetPack 6 ships 10.3) whose parser is public with
its list. It also has operators that no graph of ClipEdge takes: graphs that were traced, or written by another
quantizer, are checked, too.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, defs

from clipedge.export.tensorrt_rules.facts import Broken, Facts, Rule, named, type_name

__all__ = ["RULES"]

SOURCE = "https://github.com/onnx/onnx-tensorrt/blob/10.1-GA/docs/operators.md"

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
NUMBERS = FLOATS | {TensorProto.INT32, TensorProto.INT64}
ANY = NUMBERS | {TensorProto.BOOL}

_OF_FLOATS = """
    Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos Cosh CumSum
    Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization
    HardSigmoid HardSwish Hardmax InstanceNormalization IsInf LRN LSTM LayerNormalization LeakyRelu Log LogSoftmax
    LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization PRelu Pow QuantizeLinear RNN Reciprocal Resize Round
    Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Upsample
"""
_OF_NUMBERS = """
    Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Mean Min Mod Mul Neg
    Pad Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TopK
"""
_OF_ANY = """
    Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop OneHot
    Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where
"""

# Operator -> the types that its data may have.
SUPPORTED: Mapping[str, frozenset[int]] = {
    **dict.fromkeys(_OF_FLOATS.split(), FLOATS),
    **dict.fromkeys(_OF_NUMBERS.split(), NUMBERS),
    **dict.fromkeys(_OF_ANY.split(), ANY),
    **dict.fromkeys(("Cast", "CastLike"), ANY | {TensorProto.UINT8}),
    **dict.fromkeys(("And", "Not", "Or", "Xor"), frozenset({TensorProto.BOOL})),
    **dict.fromkeys(("DeformConv", "GridSample", "Mish", "NonZero", "RoiAlign"), FLOATS - {TensorProto.BFLOAT16}),
    "Gelu": NUMBERS | {TensorProto.INT8},
    "DequantizeLinear": frozenset({TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4}),
}

DATA_INPUT = {"Where": 1}  # elsewhere the first input is the data
# Operator -> the input that the engine has to know when it is built.
CONSTANT_INPUTS = {
    **{name: 1 for name in SUPPORTED if name.startswith("Reduce")},
    **dict.fromkeys(("CumSum", "OneHot", "Squeeze", "Unsqueeze"), 1),
    **dict.fromkeys(("Pad", "Slice"), 3),
}
FIRST_OUTPUT_ONLY = ("LayerNormalization", "MaxPool")


def _unknown_operators(facts: Facts) -> Broken:
    for node in facts.nodes:
        if node.domain not in ("", "ai.onnx") or node.op_type not in SUPPORTED:
            operator = f"{node.domain}.{node.op_type}".removeprefix(".")
            yield named(node), f"{operator} is not in the list of supported operators"


def _wrong_types(facts: Facts) -> Broken:
    for node in facts.nodes:
        allowed = SUPPORTED.get(node.op_type)
        if allowed is None or node.domain not in ("", "ai.onnx") or node.op_type == "DequantizeLinear":
            continue  # rules "operator" and "quantized-type"
        for tensor in _data_inputs(node, facts.opset):
            found = facts.types.get(tensor)
            if found not in allowed and found != TensorProto.UINT8:  # rule "uint8"
                what = "of a type that cannot be inferred" if found is None else type_name(found)
                expected = ", ".join(map(type_name, sorted(allowed)))
                yield named(node), f"{node.op_type} reads {tensor}, which is {what}; it takes {expected}"


def _data_inputs(node: onnx.NodeProto, opset: int) -> list[str]:
    """The inputs that have the type of the operator's data; others are indices, shapes, scales, conditions."""
    schema = defs.get_schema(node.op_type, opset)
    if not schema.inputs or not node.input:
        return []
    formal = [schema.inputs[min(place, len(schema.inputs) - 1)].type_str for place in range(len(node.input))]
    data = formal[DATA_INPUT.get(node.op_type, 0)]
    return [name for name, kind in zip(node.input, formal, strict=True) if name and kind == data]


def _computed_axes(facts: Facts) -> Broken:
    for node in facts.nodes:
        place = CONSTANT_INPUTS.get(node.op_type, len(node.input))
        if place < len(node.input) and node.input[place] and node.input[place] not in facts.constants:
            yield named(node), f"{node.op_type} takes {node.input[place]} from the graph, it has to be an initializer"


def _further_outputs(facts: Facts) -> Broken:
    for node in facts.nodes:
        if node.op_type in FIRST_OUTPUT_ONLY and any(node.output[1:]):
            yield named(node), f"{node.op_type} gives {', '.join(node.output)}; only the first output is supported"


RULES = (
    Rule("operator", "every operator is one that the parser imports", SOURCE, _unknown_operators),
    Rule("type", "every operator's data are of the types that it is imported for", SOURCE, _wrong_types),
    Rule("constant-axes", "axes (and the like) are constants", SOURCE, _computed_axes),
    Rule("outputs", "of LayerNormalization and MaxPool only the first output is there", SOURCE, _further_outputs),
)
