"""Walk a graph with the subgraphs of its If, Loop and Scan nodes, and rename its values scope by scope."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping

import onnx

STANDARD_DOMAINS = ("", "ai.onnx")
"""The two spellings of ONNX's own operator set."""


def is_op(node: onnx.NodeProto, op_type: str) -> bool:
    """Whether `node` is the standard operator `op_type`, not one of the same name from another domain."""
    return bool(node.op_type == op_type and node.domain in STANDARD_DOMAINS)


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    """The attribute of that name, or None where the node leaves it to its default."""
    return next((each for each in node.attribute if each.name == name), None)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that `node` holds as attributes, not the graphs within them."""
    for each in node.attribute:
        if each.HasField("g"):
            yield each.g
        yield from each.graphs


def graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """`graph` and every graph nested in it, outer before inner."""
    found = [graph]
    for outer in found:  # the list grows while it is walked
        for node in outer.node:
            found.extend(subgraphs(node))
    return found


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of `graph` and of the graphs nested in it."""
    for each in graphs(graph):
        yield from each.node


def definitions(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name that `graph` itself defines, in order; a name that is input and initializer comes twice."""
    yield from (each.name for each in graph.input)
    yield from (each.name for each in graph.initializer)
    yield from (each.values.name for each in graph.sparse_initializer)
    for node in graph.node:
        yield from filter(None, node.output)


def uses(graph: onnx.GraphProto) -> Counter[str]:
    """How often each name is read: by nodes on any level and as an output of any graph.

    Requires that a name means the same thing on every level (`unique_names`).
    """
    found = Counter(name for node in nodes(graph) for name in node.input if name)
    found.update(each.name for inner in graphs(graph) for each in inner.output)
    return found


def fresh_names(taken: Container[str], stem: str = "t") -> Iterator[str]:
    """Endless new names t0, t1, ... that are not in `taken`."""
    return (name for name in map(f"{stem}{{}}".format, itertools.count()) if name not in taken)


def rename(graph: onnx.GraphProto, names: Mapping[str, str], inner: Callable[[str], str]) -> None:
    """Rename in place: values visible in `graph` by `names`, what a nested graph defines by `inner`.

    names: old to new name; a name that is absent stays.
    inner: called once per definition in a nested graph; such a definition hides an outer value of the same name,
        so it is followed scope by scope. If, Loop and Scan bind inputs and outputs by position, so any name will do.
    """
    for value in itertools.chain(graph.input, graph.output, graph.value_info, graph.initializer):
        value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for body in subgraphs(node):
            rename(body, {**names, **{name: inner(name) for name in dict.fromkeys(definitions(body))}}, inner)


def unique_names(graph: onnx.GraphProto) -> None:
    """Rename in place so that no name is defined twice in `graph` and the graphs nested in it.

    Names of the main graph stay, and so does the first of equal names in nested graphs.
    Requires that `graph` itself defines no name twice. Names that are read but never defined stay as they are.
    """
    taken = set(definitions(graph))
    taken.update(each.name for each in graph.output)

    def inner(name: str) -> str:
        chosen = name if name not in taken else next(fresh_names(taken, f"{name}_"))
        taken.add(chosen)
        return chosen

    rename(graph, {}, inner)
