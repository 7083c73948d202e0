"""Weights as they stand in a Source's graph: declared as external initializers, without data and without a place."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper


def declare(name: str, data_type: int, dims: Iterable[int]) -> TensorProto:
    """The declaration of a weight. data_type: a TensorProto.DataType."""
    return TensorProto(name=name, data_type=data_type, dims=dims, data_location=TensorProto.EXTERNAL)


def duplicate(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model`, to be changed in place; small, because declared weights have no data."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def declared_weights(model: onnx.ModelProto) -> list[TensorProto]:
    """The weights that `model` declares, in its order; not copies."""
    return [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]


def declared_bytes(tensor: TensorProto) -> int:
    """Bytes of the values of a declared weight."""
    itemsize = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    return int(math.prod(tensor.dims) * itemsize)


def set_place(tensor: TensorProto, location: str, offset: int, nbytes: int) -> None:
    """Say in place that the data of `tensor` is in the file `location`, relative to the graph's folder."""
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", nbytes)):
        tensor.external_data.add(key=key, value=str(value))
