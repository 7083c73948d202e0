"""Bring the weights of a parsed graph out of Constant nodes and nested graphs, to the main graph's initializers."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from bsexport.graph import walk
from bsexport.graph.clean import is_weight


def take_weights(graph: onnx.GraphProto) -> list[TensorProto]:
    """Remove from `graph`, in place, every constant that `is_weight`, and return them under their value names.

    Requires unique names (`walk.unique_names`). The returned tensors keep their data; nothing is copied but the
    lists of Constant nodes. Values that read a weight go on reading it by its name, so the caller has to put
    an initializer of that name into the main graph. Order: the main graph's initializers first, as they stand.
    """
    taken: list[TensorProto] = []
    for inner in walk.graphs(graph):
        found = _take_initializers(inner, keep_inputs=inner is not graph) + _take_constants(inner)
        if inner is not graph:
            _return_through_identity(inner, {tensor.name for tensor in found}, graph)
        taken.extend(found)
    return taken


def _take_initializers(graph: onnx.GraphProto, *, keep_inputs: bool) -> list[TensorProto]:
    """keep_inputs: leave initializers that a nested graph also has as formal inputs, which its node binds."""
    inputs = {value.name for value in graph.input} if keep_inputs else set()
    taken: list[TensorProto] = []
    for at in reversed(range(len(graph.initializer))):
        tensor = graph.initializer[at]
        if is_weight(tensor.data_type, tensor.dims) and tensor.name not in inputs:
            taken.append(tensor)
            del graph.initializer[at]
    return taken[::-1]


def _take_constants(graph: onnx.GraphProto) -> list[TensorProto]:
    taken: list[TensorProto] = []
    for at in reversed(range(len(graph.node))):
        node = graph.node[at]
        tensor = constant_tensor(node) if walk.is_op(node, "Constant") else None
        if tensor is not None and is_weight(tensor.data_type, tensor.dims):
            tensor.name = node.output[0]
            taken.append(tensor)
            del graph.node[at]
    return taken[::-1]


def constant_tensor(node: onnx.NodeProto) -> TensorProto | None:
    """What a Constant node holds, or None where it can be no weight: a scalar, strings, a sparse tensor."""
    if (value := walk.attribute(node, "value")) is not None:
        return value.t
    if (floats := walk.attribute(node, "value_floats")) is not None:
        return helper.make_tensor("", TensorProto.FLOAT, [len(floats.floats)], floats.floats)
    if (ints := walk.attribute(node, "value_ints")) is not None:
        return helper.make_tensor("", TensorProto.INT64, [len(ints.ints)], ints.ints)
    return None


def _return_through_identity(nested: onnx.GraphProto, taken: set[str], graph: onnx.GraphProto) -> None:
    """A nested graph must not return a value of an outer graph as it is: put an Identity before such outputs."""
    returned = [value for value in nested.output if value.name in taken]
    if not returned:
        return
    fresh = walk.fresh_names({name for inner in walk.graphs(graph) for name in walk.definitions(inner)} | taken)
    for value in returned:
        name = next(fresh)
        nested.node.append(helper.make_node("Identity", [value.name], [name]))
        value.name = name
