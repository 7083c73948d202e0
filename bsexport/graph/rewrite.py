"""Rewrite a cleaned graph to the two graphs of every package: decoded.onnx (`plain`) and model.onnx (`coded`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from bsexport.errors import ExportError
from bsexport.graph import walk
from bsexport.graph.clean import import_domains
from bsexport.graph.products import gathers_rows, product_trans_b
from bsexport.graph.schema import DOMAIN, DOMAIN_VERSION, note_shapes
from bsexport.graph.skeleton import declare, declared_bytes, declared_weights, duplicate, set_place
from bsexport_runtime.package import ARENA, WEIGHTS

BLOB_SUFFIX = ".bsx"
"""A coded weight NAME stands in the coded graph as the uint8 initializer NAME + BLOB_SUFFIX."""

_FLOATING = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class BlobPlace:
    """Where one weight lies in weights.bsx, in bytes from the file's start.

    offset, nbytes: the whole blob, header included.
    payload_offset, payload_nbytes: for a raw weight, its values as the graph's dtype stores them.
    coded: exp-Golomb coded, or raw.
    """

    offset: int
    nbytes: int
    payload_offset: int
    payload_nbytes: int
    coded: bool


def inline_constants(model: onnx.ModelProto) -> list[str]:
    """Names of the floating-point initializers that stay in the graph: too small for weights, or of no blob's rank."""
    numbers = [t for t in model.graph.initializer if t.data_location != TensorProto.EXTERNAL]
    return [t.name for t in numbers if t.data_type in _FLOATING]


def plain(model: onnx.ModelProto, arena: Mapping[str, tuple[int, int]]) -> onnx.ModelProto:
    """decoded.onnx: a copy of `model` in which every weight is external in `ARENA`, a file that never exists.

    arena: weight name to (offset, nbytes) in the decoded buffer.
    Raises ValueError if `arena` lacks a weight, names another, or gives one another size than its shape.
    """
    rewritten = duplicate(model)
    _check_names(rewritten, arena.keys())
    for tensor in declared_weights(rewritten):
        offset, nbytes = arena[tensor.name]
        _check_bytes(tensor, nbytes)
        set_place(tensor, ARENA, offset, nbytes)
    return rewritten


def coded(model: onnx.ModelProto, blobs: Mapping[str, BlobPlace]) -> onnx.ModelProto:
    """model.onnx: a copy of `model` in which every coded weight is its blob, read by operators of `DOMAIN`.

    EGMatMul(x, blob), attributes shape = the weight's two dims, transB 0 or 1: float32 x times the weight or its
    transpose, as MatMul does it for a right operand of rank 2 (x of any rank from 1). Stands for MatMul,
    FusedMatMul with transB alone, and Gemm with alpha 1, beta 1 and no transA, whose bias becomes an Add.
    EGGather(blob, indices), attribute shape: float32 Gather on axis 0; int32 or int64 indices of any rank,
    negative ones count from the end.
    EGDecode(blob), attributes shape and dtype (TensorProto.DataType): the weight itself, once for all other uses.
    A raw weight stays an initializer under its own name, external at its payload. Every value whose shape can be told
    has it noted, for viewers.

    Requires a cleaned graph (unique names). Ensures the order of nodes, with the decodes first.
    Raises ValueError if `blobs` lacks a weight, names another, or gives a raw one another size than its shape;
    ExportError if a blob's name is taken.
    """
    rewritten = duplicate(model)
    graph = rewritten.graph
    _check_names(rewritten, blobs.keys())
    taken = {name for inner in walk.graphs(graph) for name in walk.definitions(inner)}
    weights: dict[str, TensorProto] = {}
    for tensor in declared_weights(rewritten):
        place = blobs[tensor.name]
        if place.coded:
            weights[tensor.name] = declare(tensor.name, tensor.data_type, tensor.dims)
            _become_blob(tensor, place, taken)
        else:
            _check_bytes(tensor, place.payload_nbytes)
            set_place(tensor, WEIGHTS, place.payload_offset, place.payload_nbytes)
    _fuse(graph, weights, walk.fresh_names(taken))
    left = walk.uses(graph)
    for name in reversed([name for name in weights if name in left]):
        graph.node.insert(0, _eg_node("EGDecode", [name + BLOB_SUFFIX], name, weights[name], dtype=True))
    if weights:
        rewritten.opset_import.append(helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
    import_domains(rewritten)
    note_shapes(rewritten)
    return rewritten


def _check_names(model: onnx.ModelProto, placed: Set[str]) -> None:
    declared = {tensor.name for tensor in declared_weights(model)}
    if declared != placed:
        raise ValueError(f"weights and places do not match: {sorted(declared ^ placed)[:5]}")


def _check_bytes(tensor: TensorProto, nbytes: int) -> None:
    if nbytes != declared_bytes(tensor):
        raise ValueError(f"weight {tensor.name!r} {list(tensor.dims)} has {declared_bytes(tensor)} bytes, not {nbytes}")


def _become_blob(tensor: TensorProto, place: BlobPlace, taken: Set[str]) -> None:
    name = tensor.name + BLOB_SUFFIX
    if name in taken:
        raise ExportError(f"tensor {tensor.name!r}: its blob would be called {name!r}, which the model uses; rename it")
    tensor.Clear()
    tensor.name, tensor.data_type = name, TensorProto.UINT8
    tensor.dims.append(place.nbytes)
    set_place(tensor, WEIGHTS, place.offset, place.nbytes)


def _fuse(graph: onnx.GraphProto, weights: Mapping[str, TensorProto], fresh: Iterator[str]) -> None:
    """Replace every node, on every level, that can read a coded weight as it is."""
    for inner in walk.graphs(graph):
        for at in reversed(range(len(inner.node))):
            replacement = _fused(inner.node[at], weights, fresh)
            if replacement:
                inner.node[at].CopyFrom(replacement[0])
                for extra in replacement[1:]:
                    inner.node.insert(at + 1, extra)


def _fused(node: onnx.NodeProto, weights: Mapping[str, TensorProto], fresh: Iterator[str]) -> list[onnx.NodeProto]:
    """The nodes that replace `node`, or none if it has no coded weight that an operator of ours can read."""
    (output,) = node.output if len(node.output) == 1 else ("",)
    if walk.is_op(node, "Gather") and (weight := _float32(weights, node.input[0])) is not None:
        if not gathers_rows(node, len(weight.dims)):
            return []
        return [_eg_node("EGGather", [weight.name + BLOB_SUFFIX, node.input[1]], output, weight)]
    weight = _float32(weights, node.input[1]) if len(node.input) > 1 else None
    if weight is None or len(weight.dims) != 2 or (trans_b := product_trans_b(node)) is None:
        return []
    operands = [node.input[0], weight.name + BLOB_SUFFIX]
    if len(node.input) < 3 or not node.input[2]:
        return [_eg_node("EGMatMul", operands, output, weight, trans_b=trans_b)]
    product = next(fresh)
    return [
        _eg_node("EGMatMul", operands, product, weight, trans_b=trans_b),
        helper.make_node("Add", [product, node.input[2]], [output]),
    ]


def _float32(weights: Mapping[str, TensorProto], name: str) -> TensorProto | None:
    weight = weights.get(name)
    return weight if weight is not None and weight.data_type == TensorProto.FLOAT else None


def _eg_node(
    op_type: str, inputs: list[str], output: str, weight: TensorProto, trans_b: int | None = None, dtype: bool = False
) -> onnx.NodeProto:
    attributes: dict[str, list[int] | int] = {"shape": list(weight.dims)}
    if trans_b is not None:
        attributes["transB"] = trans_b
    if dtype:
        attributes["dtype"] = weight.data_type
    return helper.make_node(op_type, inputs, [output], domain=DOMAIN, **attributes)
