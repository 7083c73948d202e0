"""Write a graph back as a standalone .onnx file of standard operators, for tools that know nothing of packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from bsexport.graph import walk
from bsexport.graph.clean import import_domains
from bsexport.graph.products import is_fused_matmul
from bsexport.graph.skeleton import declared_bytes, declared_weights, duplicate, set_place

INLINE_BYTES = 2_000_000_000
"""Weights of more bytes than this go to an external file: a protobuf holds 2 GiB, graph included."""

ALIGNMENT = 4096
"""Of tensors in the external file, in bytes: the ONNX specification asks for pages, so that they can be mapped."""


def standard(model: onnx.ModelProto) -> tuple[onnx.ModelProto, frozenset[str]]:
    """A copy of `model` without FusedMatMul(x, W, transB=1), and the names of the weights to be stored transposed.

    A weight that is read by such products alone is declared transposed and read by MatMul; any other, such as an
    embedding tied to an output layer, keeps its orientation and is read by MatMul through one Transpose.
    Requires a cleaned graph. Ensures that the weights are declared under their names, still without data.
    """
    rewritten = duplicate(model)
    graph = rewritten.graph
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    weights = {tensor.name: tensor for tensor in declared_weights(rewritten)}
    products = [
        node
        for node in walk.nodes(graph)
        if is_fused_matmul(node) and (trans_b := walk.attribute(node, "transB")) is not None
        if trans_b.i and node.input[1] in matrices
    ]
    only_here = walk.uses(graph)
    only_here.subtract(node.input[1] for node in products)
    transposed = frozenset(n.input[1] for n in products if n.input[1] in weights and not only_here[n.input[1]])
    for name in transposed:
        weights[name].dims[:] = weights[name].dims[::-1]
    through: dict[str, str] = {}
    fresh = walk.fresh_names({name for inner in walk.graphs(graph) for name in walk.definitions(inner)})
    for node in products:
        weight = node.input[1]
        if weight not in transposed and weight not in through:
            through[weight] = next(fresh)
        node.CopyFrom(helper.make_node("MatMul", [node.input[0], through.get(weight, weight)], list(node.output)))
    for weight, name in through.items():
        graph.node.insert(0, helper.make_node("Transpose", [weight], [name], perm=[1, 0]))
    import_domains(rewritten)
    return rewritten, transposed


def write_standard(
    model: onnx.ModelProto, path: Path, read: Callable[[str], npt.NDArray[Any]], *, external: bool = False
) -> None:
    """Write `model` (cleaned, weights declared) to `path` as a standalone .onnx file, one weight after the other.

    read: weight name to array, of the shape and dtype that `model` declares; called once per weight, in order.
    external: put the weights into one file beside it, PATH.data, with one weight in memory at a time; done unasked
        above `INLINE_BYTES` of weights. Otherwise all weights are in memory, twice while the file is written.
    Raises OSError (FileExistsError) if a file cannot be written or exists, ValueError if `read` returns another shape
    or dtype.
    Whatever is raised, no partial file stays.
    """
    data_path = path.with_name(path.name + ".data")
    rewritten, transposed = standard(model)
    weights = declared_weights(rewritten)
    external = external or sum(map(declared_bytes, weights)) > INLINE_BYTES
    written: list[Path] = []
    try:
        if external and weights:
            with data_path.open("xb") as stream:
                written.append(data_path)
                for tensor in weights:
                    data = _values(tensor, read, transposed)
                    stream.write(bytes(-stream.tell() % ALIGNMENT))
                    set_place(tensor, data_path.name, stream.tell(), data.nbytes)
                    stream.write(data.reshape(-1).view(np.uint8).data)
        else:
            for tensor in weights:
                tensor.raw_data = _values(tensor, read, transposed).tobytes()
                tensor.ClearField("data_location")
        with path.open("xb") as stream:
            written.append(path)
            stream.write(rewritten.SerializeToString())
    except BaseException:
        for partial in written:
            partial.unlink(missing_ok=True)
        raise


def _values(
    tensor: TensorProto, read: Callable[[str], npt.NDArray[Any]], transposed: frozenset[str]
) -> npt.NDArray[Any]:
    """What `read` gives for a weight, checked, in the orientation that `tensor` declares."""
    array = read(tensor.name)
    values = np.ascontiguousarray(array.T) if tensor.name in transposed else np.ascontiguousarray(array)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    if values.shape != tuple(tensor.dims) or values.dtype != dtype:
        raise ValueError(
            f"weight {tensor.name!r}: read {values.dtype} {values.shape}, declared {dtype} {tuple(tensor.dims)}"
        )
    return values
