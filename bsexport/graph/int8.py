"""Rewrite a cleaned graph to int8.onnx: matrices of 8 bits, multiplied by activations that are rounded to 8 bits.

Operators of onnxruntime alone. A product is a MatMulIntegerToFloat behind one DynamicQuantizeLinear for all products of
the same activation; a Gather takes int8 rows and makes floats of those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from bsexport.errors import ExportError
from bsexport.graph import walk
from bsexport.graph.clean import MICROSOFT, import_domains
from bsexport.graph.products import gathers_rows, product_trans_b
from bsexport.graph.skeleton import declare, declared_weights, duplicate, set_place
from bsexport_runtime.int8 import SCALE_BYTES, Int8Form, Int8Place
from bsexport_runtime.package import ARENA

OLDEST_OPSET = 11
"""The first operator set of ONNX that has DynamicQuantizeLinear."""

_ROWS = "rows"  # how a Gather reads a weight


@dataclass(frozen=True)
class Reading:
    """How the nodes of a graph read a matrix. transposed: they multiply by it as [columns, rows]. axis: along which a
    scale belongs to one output of a product, or else to one row that is gathered."""

    transposed: bool
    axis: int


def readings(models: Iterable[onnx.ModelProto]) -> dict[str, Reading | str]:
    """For each weight that graphs of one model declare how they read it, or why that cannot be done in int8.

    Requires cleaned graphs.
    """
    weights: dict[str, TensorProto] = {}
    found: defaultdict[str, set[str | int]] = defaultdict(set)
    for model in models:
        declared = {tensor.name: tensor for tensor in declared_weights(model)}
        weights |= declared
        for node in walk.nodes(model.graph):
            for at, name in enumerate(node.input):
                if name in declared:
                    found[name].add(_use(node, at, len(declared[name].dims)))
        for inner in walk.graphs(model.graph):
            for value in inner.output:
                if value.name in declared:
                    found[value.name].add("an output of the graph")
    return {name: _reading(tensor, found[name]) for name, tensor in weights.items()}


def int8(model: onnx.ModelProto, form: Int8Form, step: float) -> onnx.ModelProto:
    """int8.onnx: a copy of `model` whose weights are external in `ARENA`, a file that never exists, as `form` has them.

    form: of all weights of the package, of which this graph may have a part; for weights that `readings` gives a
        Reading, a matrix of that orientation and axis if it is to be int8.
    step: the scale of all rows that have no other.
    Requires a cleaned graph. Raises ExportError if its operator set is too old.
    """
    rewritten = duplicate(model)
    opset = next(each.version for each in rewritten.opset_import if each.domain in walk.STANDARD_DOMAINS)
    if opset < OLDEST_OPSET:
        raise ExportError(f"--int8 needs ONNX opset {OLDEST_OPSET} or later, the graph has {opset}; export it anew")
    _Rewriter(rewritten.graph, form, step).rewrite()
    import_domains(rewritten)
    return rewritten


def _use(node: onnx.NodeProto, at: int, rank: int) -> str | int:
    """What a node does with its input number `at`: _ROWS, transB of a product, or something else in words."""
    if at == 0 and gathers_rows(node, rank):
        return _ROWS
    if at == 1 and (trans_b := product_trans_b(node)) is not None:
        return trans_b
    return f"read by {node.op_type}"


def _reading(tensor: TensorProto, uses: set[str | int]) -> Reading | str:
    if tensor.data_type != TensorProto.FLOAT:
        return f"{TensorProto.DataType.Name(tensor.data_type).lower()}, not float32"
    if others := sorted(use for use in uses if isinstance(use, str) and use != _ROWS):
        return others[0]
    if len(tensor.dims) != 2:
        return f"of {len(tensor.dims)} dimensions"
    products = uses - {_ROWS}
    if len(products) > 1:
        return "multiplied both as it is and transposed"
    return Reading(transposed=1 in products, axis=1 if 0 in products else 0)


class _Rewriter:
    """What rewriting one graph needs to know; `graph` is changed in place."""

    def __init__(self, graph: onnx.GraphProto, form: Int8Form, step: float) -> None:
        taken = {name for inner in walk.graphs(graph) for name in walk.definitions(inner)}
        self.graph = graph
        self.fresh = walk.fresh_names(taken)
        self.places = {place.name: place for place in form.places}
        self.matrices = {name: place for name, place in self.places.items() if place.matrix is not None}
        self.step = self._constant(TensorProto.FLOAT, (), [step])
        self.scales: dict[tuple[str, bool], str] = {}  # of a matrix, as a row or a column -> initializer
        self.rounded: dict[str, list[str]] = {}  # activation -> its values, scale and zero point, in one graph

    def rewrite(self) -> None:
        for tensor in [each for each in self.graph.initializer if each.data_location == TensorProto.EXTERNAL]:
            self._place(tensor, self.places[tensor.name])
        for inner in reversed(walk.graphs(self.graph)):  # inner before outer, whose nodes are copied with them
            self.rounded = {}
            nodes = [new for node in inner.node for new in self._replacement(node)]
            del inner.node[:]
            inner.node.extend(nodes)

    def _place(self, tensor: TensorProto, place: Int8Place) -> None:
        if place.matrix is not None:
            tensor.data_type = TensorProto.INT8
            if place.matrix.transposed:
                tensor.dims[:] = tensor.dims[::-1]
        set_place(tensor, ARENA, place.arena_offset, place.nbytes)

    def _replacement(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if len(node.input) > 1 and node.input[1] in self.matrices:
            yield from self._product(node, self.matrices[node.input[1]])
        elif len(node.input) > 1 and node.input[0] in self.matrices:
            yield from self._gather(node, self.matrices[node.input[0]])
        else:
            yield node

    def _product(self, node: onnx.NodeProto, place: Int8Place) -> Iterator[onnx.NodeProto]:
        x, weight, *bias = node.input
        if x not in self.rounded:
            self.rounded[x] = [next(self.fresh) for _ in range(3)]
            yield helper.make_node("DynamicQuantizeLinear", [x], self.rounded[x])
        values, scale, zero = self.rounded[x]
        operands = [values, weight, scale, self._scale(place, column=False), zero]
        has_bias = any(bias)
        output = next(self.fresh) if has_bias else node.output[0]
        yield helper.make_node("MatMulIntegerToFloat", operands, [output], domain=MICROSOFT)
        if has_bias:
            yield helper.make_node("Add", [output, bias[0]], list(node.output))

    def _gather(self, node: onnx.NodeProto, place: Int8Place) -> Iterator[onnx.NodeProto]:
        table, indices = node.input
        rows = next(self.fresh)
        if place.matrix is not None and place.matrix.transposed:
            yield from self._gather_columns(table, indices, place.shape[1], rows)
        else:
            yield helper.make_node("Gather", [table, indices], [rows])
        if not place.scales:
            yield helper.make_node("DequantizeLinear", [rows, self.step], list(node.output))
            return
        values = next(self.fresh)
        yield helper.make_node("Cast", [rows], [values], to=TensorProto.FLOAT)
        if place.matrix is not None and place.matrix.axis == 1:
            factors = self._scale(place, column=False)
        else:
            factors = next(self.fresh)
            yield helper.make_node("Gather", [self._scale(place, column=True), indices], [factors])
        yield helper.make_node("Mul", [values, factors], list(node.output))

    def _gather_columns(self, table: str, indices: str, width: int, rows: str) -> Iterator[onnx.NodeProto]:
        """Rows of a table that lies transposed: its columns, and those then transposed."""
        flat, columns, turned, outer, shape = (next(self.fresh) for _ in range(5))
        yield helper.make_node("Reshape", [indices, self._constant(TensorProto.INT64, (1,), [-1])], [flat])
        yield helper.make_node("Gather", [table, flat], [columns], axis=1)
        yield helper.make_node("Transpose", [columns], [turned], perm=[1, 0])
        yield helper.make_node("Shape", [indices], [outer])
        yield helper.make_node("Concat", [outer, self._constant(TensorProto.INT64, (1,), [width])], [shape], axis=0)
        yield helper.make_node("Reshape", [turned, shape], [rows])

    def _scale(self, place: Int8Place, *, column: bool) -> str:
        """The initializer with a matrix's scales, [n] or as a column [n, 1]; or with the step, if it has no others."""
        if not place.scales:
            return self.step
        if (place.name, column) not in self.scales:
            name = self.scales[place.name, column] = next(self.fresh)
            tensor = declare(name, TensorProto.FLOAT, [place.scales, 1] if column else [place.scales])
            set_place(tensor, ARENA, place.scales_offset, SCALE_BYTES * place.scales)
            self.graph.initializer.append(tensor)
        return self.scales[place.name, column]

    def _constant(self, data_type: int, dims: tuple[int, ...], values: list[float] | list[int]) -> str:
        name = next(self.fresh)
        self.graph.initializer.append(helper.make_tensor(name, data_type, dims, values))
        return name
