"""Inputs for any graph: made up, to hold two sessions against each other when no data is at hand, or completed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from bsexport.errors import VerifyError
from bsexport_runtime.cache import slots_of
from bsexport_runtime.decoder import IDS, KEPT, POSITIONS

BATCH = 2
LENGTH = 16
TEXT_INPUTS = (IDS, POSITIONS, KEPT)
"""By which the graph of a language model is known, beside its cache."""
NUMPY_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint64)": np.uint64,
    "tensor(uint32)": np.uint32,
    "tensor(uint16)": np.uint16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def sample_inputs(
    session: ort.InferenceSession, graph: onnx.GraphProto, seed: int = 0, *, batch: int = BATCH, length: int = LENGTH
) -> dict[str, npt.NDArray[Any]]:
    """One seeded input for each of the session's inputs.

    graph: the session's graph, which tells the tables that inputs index.
    Floats are normal; integers that index a table lie within it; masks are all ones; other integers are 0. A dimension
    without a size is `batch` if it is the first, else `length`; dimensions of one name are equal. A language model's
    cache is empty, and has room for its tokens.
    Raises VerifyError for an input type that has no numpy counterpart.
    """
    random = np.random.default_rng(seed)
    limits = index_limits(graph)
    free = (batch, length)
    named: dict[str, int] = {}
    inputs = {}
    for value in session.get_inputs():
        if value.type not in NUMPY_DTYPES:
            raise VerifyError(f"input {value.name} is a {value.type}, for which no input can be made up")
        dtype = np.dtype(NUMPY_DTYPES[value.type])
        shape = [_size(dim, free[min(axis, 1)], named) for axis, dim in enumerate(value.shape)]
        if dtype.kind == "f":
            inputs[value.name] = random.standard_normal(shape).astype(dtype)
        elif dtype.kind == "b" or "mask" in value.name:
            inputs[value.name] = np.ones(shape, dtype)
        else:
            inputs[value.name] = random.integers(0, limits.get(value.name, 1), shape).astype(dtype)
    return inputs | _beginning(session, inputs)


def complete(session: ort.InferenceSession, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The feeds, and what the graph of a causal language model takes besides the tokens of whole texts.

    input_ids: int64 [batch, sequence], padded on the right if at all. Unless they are there, all logits are asked for.
    """
    return {**_beginning(session, feeds), **feeds}


def _beginning(session: ort.InferenceSession, feeds: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Of texts that begin with these tokens: their positions, all logits, and as many slots; {} for other graphs."""
    names = {value.name for value in session.get_inputs()}
    if not names.issuperset(TEXT_INPUTS) or IDS not in feeds:
        return {}
    batch, length = np.shape(feeds[IDS])
    places = np.tile(np.arange(length), (batch, 1))
    empty = {each.past: np.zeros((batch, each.heads, length, each.size), each.dtype) for each in slots_of(session)}
    return {POSITIONS: places, KEPT: places, **empty}


def index_limits(graph: onnx.GraphProto) -> dict[str, int]:
    """For each graph input that indexes a table on axis 0, directly or through Cast: the rows of the smallest such."""
    rows = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    inputs = {value.name: value.name for value in graph.input}
    limits: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in inputs:
            inputs[node.output[0]] = inputs[node.input[0]]
        elif _is_lookup(node) and node.input[0] in rows and node.input[1] in inputs:
            name = inputs[node.input[1]]
            limits[name] = min(limits.get(name, rows[node.input[0]]), rows[node.input[0]])
    return limits


def has_size(dim: int | str | None) -> TypeGuard[int]:
    """Whether the graph itself says how large a dimension is."""
    return isinstance(dim, int) and dim > 0


def _size(dim: int | str | None, free: int, named: dict[str, int]) -> int:
    """The size of one dimension, `free` if it has none; `named` remembers those that have a name."""
    if has_size(dim):
        return dim
    return named.setdefault(dim, free) if isinstance(dim, str) else free


def _is_lookup(node: onnx.NodeProto) -> bool:
    return node.op_type == "Gather" and not any(each.name == "axis" and each.i for each in node.attribute)
