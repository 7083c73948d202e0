"""Made-up inputs for any graph: to hold two sessions against each other when no data is at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

BATCH = 2
LENGTH = 16
NUMPY_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def sample_inputs(session: ort.InferenceSession, graph: onnx.GraphProto, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """One seeded input for each of the session's inputs.

    Floats are normal; integers that index a table lie within it; masks are all ones; other integers are 0. A dimension
    without a size is 2 if it is the first, else 16.
    Raises KeyError for an input type that has no numpy counterpart.
    """
    random = np.random.default_rng(seed)
    limits = index_limits(graph)
    inputs = {}
    for value in session.get_inputs():
        dtype = np.dtype(NUMPY_DTYPES[value.type])
        sizes = [BATCH if axis == 0 else LENGTH for axis in range(len(value.shape))]
        shape = [
            dim if isinstance(dim, int) and dim > 0 else size for dim, size in zip(value.shape, sizes, strict=True)
        ]
        if np.issubdtype(dtype, np.floating):
            inputs[value.name] = random.standard_normal(shape).astype(dtype)
        elif "mask" in value.name or dtype == np.bool_:
            inputs[value.name] = np.ones(shape, dtype)
        else:
            inputs[value.name] = random.integers(0, limits.get(value.name, 1), shape).astype(dtype)
    return inputs


def index_limits(graph: onnx.GraphProto) -> dict[str, int]:
    """For each graph input that indexes a table on axis 0, directly or through Cast: the rows of the smallest such."""
    rows = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    inputs = {value.name: value.name for value in graph.input}
    limits: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in inputs:
            inputs[node.output[0]] = inputs[node.input[0]]
        elif node.op_type == "Gather" and node.input[0] in rows and node.input[1] in inputs:
            name = inputs[node.input[1]]
            limits[name] = min(limits.get(name, rows[node.input[0]]), rows[node.input[0]])
    return limits
