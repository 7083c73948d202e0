"""Make a graph small and plain before it is rewritten: no noise, short names, one use of a weight per product.

Each pass works in place on the graph and says what it requires and what it ensures. `clean` runs them in order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from bsexport.graph import walk
from bsexport.graph.skeleton import duplicate
from bsexport_runtime.format import MAX_DIMS, DType

INLINE_ELEMENTS = 64
"""Constants of this many elements or fewer stay inline."""

INLINE_INTEGERS = 1024
"""Integer and bool constants of this many elements or fewer stay inline: onnxruntime and shape inference read them."""

MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own operators, FusedMatMul among them."""

_INTEGERS = (
    *(DType.BOOL, DType.INT8, DType.INT16, DType.INT32, DType.INT64),
    *(DType.UINT8, DType.UINT16, DType.UINT32, DType.UINT64),
)

_EXPORTERS_METADATA = "pkg."
"""How the keys begin under which torch and onnxscript note what they exported."""


def fits_blob(data_type: int, dims: Sequence[int]) -> bool:
    """Whether a blob can hold a tensor of that TensorProto.DataType and shape; any other has to stay in the graph."""
    return data_type in list(DType) and 1 <= len(dims) <= MAX_DIMS and min(dims) > 0


def is_weight(data_type: int, dims: Sequence[int]) -> bool:
    """Whether a constant leaves the graph to be stored as a weight; the others stay inline.

    data_type: an onnx TensorProto.DataType. dims: the tensor's shape.
    """
    inline = INLINE_INTEGERS if data_type in _INTEGERS else INLINE_ELEMENTS
    return fits_blob(data_type, dims) and math.prod(dims) > inline


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """A smaller copy of `model` that computes the same; `model` stays as it is.

    Weights may be without data. Names of inputs, outputs and main-graph initializers stay, all others become
    short. Bodies of model functions are left alone but for their documentation.
    """
    cleaned = duplicate(model)
    strip(cleaned)
    walk.unique_names(cleaned.graph)
    fold_identities(cleaned.graph)
    share_constants(cleaned.graph)
    fuse_transposes(cleaned.graph)
    drop_dead(cleaned.graph)
    shorten_names(cleaned.graph)
    import_domains(cleaned)
    return cleaned


def strip(model: onnx.ModelProto) -> None:
    """Remove what nothing reads: documentation, metadata, names of nodes, graphs and producers, most inferred types.

    Requires nothing. Ensures that types and shapes of inputs and outputs stay, those that let onnxruntime fuse, every
    value name, and the model's own metadata, in which applications look for class names and the like.
    """
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        model.ClearField(field)
    for field in ("training_info", "configuration"):
        _clear(model, field)
    _keep(model.metadata_props, [not each.key.startswith(_EXPORTERS_METADATA) for each in model.metadata_props])
    for graph in walk.graphs(model.graph):
        for field in ("doc_string", "metadata_props", "quantization_annotation"):
            _clear(graph, field)
        wanted = _residuals(graph)
        _keep(graph.value_info, [value.name in wanted for value in graph.value_info])
        graph.name = "g"  # the checker wants one
        for value in itertools.chain(graph.input, graph.output, graph.value_info, graph.initializer):
            _clear(value, "doc_string")
            _clear(value, "metadata_props")
        _strip_nodes(graph.node)
    for function in model.functions:
        for field in ("doc_string", "metadata_props", "value_info"):
            _clear(function, field)
        _strip_nodes(function.node)


def _residuals(graph: onnx.GraphProto) -> set[str]:
    """Operands of the sums that are layer-normalised.

    onnxruntime fuses the two nodes if it knows that both operands have the same shape. Behind a Reshape to a computed
    shape it does not, unless the exporter's note of the shape stays.
    """
    normalised = {name for node in graph.node if walk.is_op(node, "LayerNormalization") for name in node.input[:1]}
    sums = [node for node in graph.node if walk.is_op(node, "Add") and node.output[0] in normalised]
    return {name for node in sums for name in node.input}


def _strip_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for field in ("name", "doc_string", "metadata_props", "device_configurations"):
            _clear(node, field)
        for each in node.attribute:
            each.ClearField("doc_string")
            if each.HasField("t"):
                each.t.ClearField("doc_string")
                each.t.ClearField("name")


def _clear(message: Any, field: str) -> None:
    """Clear a field that not every version of the ONNX schema has."""
    if field in message.DESCRIPTOR.fields_by_name:
        message.ClearField(field)


def fold_identities(graph: onnx.GraphProto) -> None:
    """Let readers of an Identity's output read its input; tied weights become one weight with several uses.

    Requires unique names. Ensures that an Identity is left only where its output is a graph's output: the main
    graph's names must stay, and a nested graph must not return an outer value as it is.
    """
    outputs = {value.name for inner in walk.graphs(graph) for value in inner.output}
    source: dict[str, str] = {}
    for node in walk.nodes(graph):
        if walk.is_op(node, "Identity") and node.output[0] not in outputs:
            source[node.output[0]] = source.get(node.input[0], node.input[0])
    _redirect(graph, source)


def share_constants(graph: onnx.GraphProto) -> None:
    """Let readers of equal Constant nodes of one graph read the first; exporters write one for every reader.

    Requires unique names and nodes in order. Ensures that initializers and outputs of graphs stay as they are.
    """
    outputs = {value.name for inner in walk.graphs(graph) for value in inner.output}
    source: dict[str, str] = {}
    for inner in walk.graphs(graph):
        first: dict[bytes, str] = {}
        for node in inner.node:
            if walk.is_op(node, "Constant") and node.output[0] not in outputs:
                value = b"".join(sorted(each.SerializeToString(deterministic=True) for each in node.attribute))
                source[node.output[0]] = first.setdefault(value, node.output[0])
    _redirect(graph, source)


def _redirect(graph: onnx.GraphProto, source: Mapping[str, str]) -> None:
    for node in walk.nodes(graph):
        node.input[:] = [source.get(name, name) for name in node.input]


def fuse_transposes(graph: onnx.GraphProto) -> None:
    """Turn MatMul(x, Transpose(W)) into FusedMatMul(x, W, transB=1), so that W is stored and used as it is.

    Requires unique names. Only float32 initializers of rank 2: a transposed copy of any other stays as it is.
    Ensures that the Transpose is unused unless something else reads it.
    """
    weights = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2}
    source = {
        node.output[0]: node.input[0]
        for node in walk.nodes(graph)
        if walk.is_op(node, "Transpose") and node.input[0] in weights and _reverses(node)
    }
    for node in walk.nodes(graph):
        if walk.is_op(node, "MatMul") and node.input[1] in source:
            node.op_type, node.domain = "FusedMatMul", MICROSOFT
            node.input[1] = source[node.input[1]]
            node.attribute.append(helper.make_attribute("transB", 1))


def _reverses(transpose: onnx.NodeProto) -> bool:
    """Whether a Transpose of a matrix swaps its two axes, which is also what it does without `perm`."""
    perm = walk.attribute(transpose, "perm")
    return perm is None or list(perm.ints) == [1, 0]


def drop_dead(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers, on every level, that no output of the main graph depends on.

    Requires unique names, and that nodes act through their outputs alone, as ONNX nodes do. Inputs stay.
    """
    reads: dict[str, list[str]] = {}
    for node in walk.nodes(graph):
        needed = [*node.input, *(value.name for inner in walk.subgraphs(node) for value in inner.output)]
        reads.update(dict.fromkeys(node.output, needed))
    live: set[str] = set()
    queue = [value.name for value in graph.output]
    while queue:
        name = queue.pop()
        if name and name not in live:
            live.add(name)
            queue.extend(reads.get(name, ()))
    for inner in walk.graphs(graph):
        _keep(inner.node, [not live.isdisjoint(node.output) for node in inner.node])
        _keep(inner.value_info, [value.name in live for value in inner.value_info])
        _keep(inner.initializer, [tensor.name in live for tensor in inner.initializer])
        _keep(inner.sparse_initializer, [tensor.values.name in live for tensor in inner.sparse_initializer])


def _keep(field: MutableSequence[Any], wanted: list[bool]) -> None:
    for at in reversed(range(len(wanted))):
        if not wanted[at]:
            del field[at]


def shorten_names(graph: onnx.GraphProto) -> None:
    """Give every value that is computed, on every level, a short name that no other value has.

    Requires nothing. Ensures that inputs, outputs and initializers of the main graph keep their names.
    """
    kept = {value.name for value in itertools.chain(graph.input, graph.output, graph.initializer)}
    kept.update(tensor.values.name for tensor in graph.sparse_initializer)
    fresh = walk.fresh_names(kept)
    names = {name: next(fresh) for name in walk.definitions(graph) if name not in kept}
    walk.rename(graph, names, lambda _: next(fresh))


def import_domains(model: onnx.ModelProto) -> None:
    """Import the operator sets that nodes and functions need, and no others.

    Requires that a domain is imported already, or is `MICROSOFT`. ONNX's own operator set always stays.
    """
    needed = {node.domain for node in walk.nodes(model.graph)} | set(walk.STANDARD_DOMAINS)
    for function in model.functions:
        needed.add(function.domain)
        needed.update(each.domain for each in function.opset_import)
    imported = {each.domain for each in model.opset_import}
    _keep(model.opset_import, [each.domain in needed for each in model.opset_import])
    if MICROSOFT in needed - imported:
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
