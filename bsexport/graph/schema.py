"""The operators of the coded graph as schemas of onnx, for its checker and its shape inference."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx.checker
import onnx.shape_inference
from onnx import TensorProto, TypeProto, helper
from onnx.defs import OpSchema
from onnx.shape_inference import InferenceContext, InferenceError

from bsexport.graph import walk
from bsexport_runtime.format import DType

DOMAIN = "bsexport"
DOMAIN_VERSION = 1
"""Operator set of EGMatMul, EGGather and EGDecode."""

Dims = Sequence[onnx.TensorShapeProto.Dimension | int]

_UNNAMED = "unk__"  # how onnx begins the names that it makes up for sizes that it does not know

_BLOB = OpSchema.FormalParameter("blob", "B", "The coded tensor: its blob in weights.bsx, header and all.")
_SHAPE = OpSchema.Attribute("shape", OpSchema.AttrType.INTS, "The dims of the tensor in the blob.")
_BYTES = ("B", ["tensor(uint8)"], "Bytes.")
_FLOAT = ("T", ["tensor(float)"], "float32, as the tensor in the blob is.")

_MATMUL = OpSchema(
    "EGMatMul",
    DOMAIN,
    DOMAIN_VERSION,
    "x times a coded matrix W of the dims `shape`, or times its transpose, as MatMul does it for a right operand of "
    "rank 2. The matrix is never written out: blocks of it are decoded while they are multiplied.",
    inputs=[OpSchema.FormalParameter("x", "T", "Of rank 1 or more; its last dim is W's first, or second."), _BLOB],
    outputs=[OpSchema.FormalParameter("y", "T", "x @ W, or x @ W.T if transB is 1.")],
    type_constraints=[_FLOAT, _BYTES],
    attributes=[_SHAPE, OpSchema.Attribute("transB", OpSchema.AttrType.INT, "1 to multiply by W.T, 0 by W.")],
)
_GATHER = OpSchema(
    "EGGather",
    DOMAIN,
    DOMAIN_VERSION,
    "Rows of a coded tensor W of the dims `shape`, as Gather does it on axis 0. Only blocks that are asked for are "
    "decoded.",
    inputs=[_BLOB, OpSchema.FormalParameter("indices", "I", "Of any rank; negative ones count from the end.")],
    outputs=[OpSchema.FormalParameter("y", "T", "W[indices].")],
    type_constraints=[_FLOAT, _BYTES, ("I", ["tensor(int32)", "tensor(int64)"], "Integers.")],
    attributes=[_SHAPE],
)
_DECODE = OpSchema(
    "EGDecode",
    DOMAIN,
    DOMAIN_VERSION,
    "A coded tensor of the dims `shape`, decoded: for all uses but products and rows.",
    inputs=[_BLOB],
    outputs=[OpSchema.FormalParameter("y", "D", "The tensor.")],
    type_constraints=[
        _BYTES,
        ("D", [f"tensor({name})" for name in ("float", "double", "float16", "bfloat16")], "What can be coded."),
    ],
    attributes=[_SHAPE, OpSchema.Attribute("dtype", OpSchema.AttrType.INT, "Its type, a TensorProto.DataType.")],
)


def register() -> None:
    """Make the operators known to onnx in this process, once."""
    for schema, infer in ((_MATMUL, _infer_matmul), (_GATHER, _infer_gather), (_DECODE, _infer_decode)):
        if not onnx.defs.has(schema.name, DOMAIN):
            schema.set_type_and_shape_inference_function(infer)
            onnx.defs.register_schema(schema)


def refusal(coded: onnx.ModelProto, plain: onnx.ModelProto) -> str | None:
    """What onnx's checker, types and shapes included, has against the coded graph but not against the plain one.

    None if that is nothing: a model may itself hold what onnx does not know, such as operators of onnxruntime alone.
    """
    register()
    found = _refusal(coded)
    return None if found is None or _refusal(plain) is not None else found


def _refusal(model: onnx.ModelProto) -> str | None:
    """In one line, with the weights as inputs: onnx would look for their files."""
    lent = onnx.ModelProto()
    lent.CopyFrom(model)
    del lent.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            lent.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            lent.graph.initializer.append(tensor)
    try:
        onnx.checker.check_model(lent, full_check=True)
    except (onnx.checker.ValidationError, InferenceError) as error:
        return " ".join(str(error).split())
    return None


def note_shapes(model: onnx.ModelProto) -> None:
    """Write down in place the types and shapes of all values that can be told, for viewers: they infer none."""
    register()
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except InferenceError:  # the graph does not fit together: refusal() says why
        return
    for graph, told in zip(walk.graphs(model.graph), walk.graphs(inferred.graph), strict=True):
        del graph.value_info[:]
        graph.value_info.extend(told.value_info)
        for value in graph.value_info:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param.startswith(_UNNAMED):
                    dim.ClearField("dim_param")


def _infer_matmul(context: InferenceContext) -> None:
    rows, columns = _weight(context, rank=2)
    if context.get_attribute("transB").i:
        rows, columns = columns, rows
    x = _shape(context, 0)
    if x is None:
        return _tell(context, TensorProto.FLOAT, None)
    if not x:
        raise InferenceError("x is a scalar, expected a matrix")
    if x[-1].HasField("dim_value") and x[-1].dim_value != rows:
        raise InferenceError(f"x has {x[-1].dim_value} columns, expected {rows}")
    return _tell(context, TensorProto.FLOAT, [*x[:-1], columns])


def _infer_gather(context: InferenceContext) -> None:
    _, *row = _weight(context)
    indices = _shape(context, 1)
    _tell(context, TensorProto.FLOAT, None if indices is None else [*indices, *row])


def _infer_decode(context: InferenceContext) -> None:
    dtype = context.get_attribute("dtype").i
    if dtype not in {int(each) for each in DType if each.coded}:
        raise InferenceError(f"dtype is {dtype}, which cannot be coded")
    _tell(context, dtype, _weight(context))


def _weight(context: InferenceContext, rank: int | None = None) -> list[int]:
    """The attribute shape. Raises InferenceError if it has a dim below 1, or not so many."""
    dims = list(context.get_attribute("shape").ints)
    if not dims or min(dims) < 1 or rank not in (None, len(dims)):
        raise InferenceError(f"shape is {dims}, expected {rank or '1 or more'} dims of at least 1")
    return dims


def _shape(context: InferenceContext, index: int) -> list[onnx.TensorShapeProto.Dimension] | None:
    """What is known of an input's dims; None if that is not even their number."""
    kind = context.get_input_type(index)
    known = kind is not None and kind.tensor_type.HasField("shape")
    return list(kind.tensor_type.shape.dim) if known else None


def _tell(context: InferenceContext, dtype: int, dims: Dims | None) -> None:
    told = TypeProto()
    told.tensor_type.elem_type = dtype
    if dims is not None:
        told.tensor_type.shape.SetInParent()
        for dim in dims:
            if isinstance(dim, int):
                told.tensor_type.shape.dim.add(dim_value=dim)
            else:
                told.tensor_type.shape.dim.add().CopyFrom(dim)
    context.set_output_type(0, told)
