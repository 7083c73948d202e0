"""Read an .onnx file, with or without external data, into a graph without weights and weights read one by one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from bsexport.errors import SourceError
from bsexport.graph import walk
from bsexport.graph.clean import clean, is_weight
from bsexport.graph.heads import is_head
from bsexport.graph.hoist import constant_tensor, take_weights
from bsexport.graph.rewrite import inline_constants
from bsexport.graph.schema import DOMAIN
from bsexport.graph.skeleton import declare, duplicate
from bsexport.graph.tensor_data import Unpacked, data_reader, make_inline, packed_bytes
from bsexport.source import Source, Weight, default_name, device_files

OLDEST_OPSET = 9
_LARGEST_PROTOBUF = 2**31 - 1

_SCOPES = "pkg.torch.onnx.name_scopes"

_log = logging.getLogger(__name__)


def read_onnx(path: Path) -> Source:
    """Read the model at `path`: opset 9 or newer, weights inline or in external files in the same folder.

    Constants that `is_weight`, wherever they stand, become weights; everything else stays in the graph. An
    initializer that is also a graph input becomes a constant, as it is a weight or the file is of an IR version
    below 4, where every initializer had to be an input. Sparse tensors and the bodies of model functions pass
    through as they are. A file with inline weights is held in memory once, as long as the Source lives.

    Raises SourceError: no such file, not ONNX, truncated, too old or too new, or the data of a tensor missing,
    outside the folder, or not what its shape declares.
    """
    model = _parse(path)
    _check_text(model, path)
    _check_versions(model, path)
    _check_nodes(model, path)
    _check_names(model.graph, path)
    for tensor in _tensors(model):
        packed_bytes(tensor, path)
    _report_untouched(model, path)
    walk.unique_names(model.graph)
    tensors = take_weights(model.graph)
    for tensor in _tensors(model):  # what stays goes into the graph: no external place survives a move
        make_inline(tensor, path)
    heads = _heads(model.graph)
    graph = clean(_skeleton(model, tensors))
    used = {tensor.name for tensor in graph.graph.initializer}
    unpacked = Unpacked()
    place = path.absolute()  # processes of a sweep may stand elsewhere
    return Source(
        name=default_name(str(path)),
        task=None,
        graph=graph,
        weights=tuple(_weight(tensor, place, heads, unpacked) for tensor in tensors if tensor.name in used),
        files=device_files(place.parent),
        inline=tuple(inline_constants(graph)),
        stores=_stores(place, tensors),
    )


def _parse(path: Path) -> onnx.ModelProto:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise SourceError(f"{path}: not a file; give the .onnx file itself")
        if size > _LARGEST_PROTOBUF:
            raise SourceError(f"{path}: {size} bytes, an ONNX file has at most {_LARGEST_PROTOBUF}; save external data")
        data = path.read_bytes()
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise SourceError(f"{path}: {_why_unreadable(data)}") from None
    if not model.ir_version or not model.HasField("graph"):
        raise SourceError(f"{path}: {_why_unreadable(data)}")
    return model


def _why_unreadable(data: bytes) -> str:
    """What is wrong with bytes that do not parse as a model, as far as the outermost protobuf fields tell."""
    if data.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the model; run `git lfs pull`"
    if not data:
        return "an empty file, not an ONNX model"
    known = onnx.ModelProto.DESCRIPTOR.fields_by_number
    for number, end in _outer_fields(data):
        if number not in known:
            break
        if end > len(data):
            return f"truncated: it has {len(data)} bytes and goes on to byte {end}; copy or download it again"
    return "not an ONNX model (no ModelProto with a graph); give an .onnx file"


def _outer_fields(data: bytes) -> Iterator[tuple[int, int]]:
    """Number and end of each outermost field with a length, until the bytes make no sense or end."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                raise EOFError
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise EOFError

    try:
        while at < len(data):
            number, wire = divmod(varint(), 8)
            if wire not in (0, 2):
                return
            value = varint()
            if wire == 2:
                at += value
            yield number, at
    except EOFError:
        return


def _check_text(message: Any, path: Path) -> None:
    """Every string field is UTF-8: protobuf takes any bytes and hands those that are not text out as bytes."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_MESSAGE, field.TYPE_STRING):
            continue
        single = isinstance(value, str | bytes) or hasattr(value, "ListFields")
        for each in (value,) if single else value:
            if field.type == field.TYPE_MESSAGE:
                _check_text(each, path)
            elif isinstance(each, bytes):
                raise SourceError(f"{path}: {field.name} {each!r} is not UTF-8; the file is damaged")


def _check_versions(model: onnx.ModelProto, path: Path) -> None:
    """Refuse operators whose meaning is unknown here: older or newer ones may look alike and compute otherwise."""
    if model.ir_version > onnx.IR_VERSION:
        raise SourceError(
            f"{path}: IR version {model.ir_version}, the installed onnx {onnx.__version__} knows up to"
            f" {onnx.IR_VERSION}; upgrade onnx or save the model at an older version"
        )
    opsets = {each.domain: each.version for each in model.opset_import}
    if DOMAIN in opsets:
        raise SourceError(f"{path}: already the coded graph of a package; give the original model")
    versions = [opsets[domain] for domain in walk.STANDARD_DOMAINS if domain in opsets]
    uses_standard = any(node.domain in walk.STANDARD_DOMAINS for node in walk.nodes(model.graph))
    opset = versions[0] if versions else (0 if uses_standard else OLDEST_OPSET)
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise SourceError(
            f"{path}: opset {opset}, the installed onnx {onnx.__version__} knows up to {newest};"
            " upgrade onnx or export at an older opset"
        )
    if opset < OLDEST_OPSET:
        convert = f"onnx.save(onnx.version_converter.convert_version(onnx.load({path.name!r}), 17), 'opset17.onnx')"
        raise SourceError(
            f"{path}: opset {opset or 'not declared'}, at least {OLDEST_OPSET} is needed; convert it with"
            f" `import onnx.version_converter; {convert}`"
        )


def _check_nodes(model: onnx.ModelProto, path: Path) -> None:
    """Every standard operator has as many inputs and outputs as it must; the passes over the graph rely on it."""
    opset = max((each.version for each in model.opset_import if each.domain in walk.STANDARD_DOMAINS), default=0)
    for node in walk.nodes(model.graph):
        if node.domain not in walk.STANDARD_DOMAINS:
            continue
        try:
            schema = onnx.defs.get_schema(node.op_type, opset, "")
        except onnx.defs.SchemaError:
            continue  # one of onnxruntime's own, which it keeps in ONNX's domain
        inputs, outputs = len(node.input), len(node.output)
        fits = schema.min_input <= inputs <= schema.max_input and schema.min_output <= outputs <= schema.max_output
        if not fits:
            where = node.name or (node.output[0] if node.output else "")
            found = f"{node.op_type} with {inputs} inputs and {outputs} outputs"
            raise SourceError(f"{path}: node {where!r}: {found}; the file is damaged")


def _check_names(graph: onnx.GraphProto, path: Path, outer: Set[str] = frozenset()) -> None:
    """Every value has a name and is defined once; only an input may have an initializer as its default.

    A formal input of a nested graph may hide an outer value. Nothing else may: ONNX forbids it, and onnxruntime
    then reads the outer initializer, or refuses the graph.
    """
    inputs = {value.name for value in graph.input}
    count = Counter(walk.definitions(graph))
    count.subtract(inputs & {tensor.name for tensor in graph.initializer})
    for name, times in count.items():
        if not name:
            raise SourceError(f"{path}: an input or initializer has no name; the file is damaged")
        if times > 1:
            raise SourceError(f"{path}: value {name!r} is defined twice; the file is damaged")
        if name in outer and name not in inputs:
            raise SourceError(
                f"{path}: value {name!r} of a nested graph hides an outer one, which ONNX forbids; rename it"
            )
    for node in graph.node:
        for nested in walk.subgraphs(node):
            _check_names(nested, path, outer | count.keys())


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every dense tensor of the model, wherever it stands, and the parts of sparse ones."""
    for graph in walk.graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    bodies = [node for function in model.functions for node in function.node]
    for node in [*walk.nodes(model.graph), *bodies]:
        for each in node.attribute:
            yield from each.tensors
            if each.HasField("t"):
                yield each.t
            if each.HasField("sparse_tensor"):
                yield from (each.sparse_tensor.values, each.sparse_tensor.indices)


def _report_untouched(model: onnx.ModelProto, path: Path) -> None:
    """Warn of large constants that no option reaches, so that nobody wonders why they did not shrink."""
    sparse = [each.values.name for graph in walk.graphs(model.graph) for each in graph.sparse_initializer]
    sparse += [node.output[0] for node in walk.nodes(model.graph) if walk.attribute(node, "sparse_value") is not None]
    if sparse:
        _log.warning("%s: sparse tensors stay as they are, neither pruned nor coded: %s", path, ", ".join(sparse))
    inside = [
        f"{node.output[0]} in {function.name}"
        for function in model.functions
        for node in function.node
        if walk.is_op(node, "Constant")
        and (tensor := constant_tensor(node)) is not None
        and is_weight(tensor.data_type, tensor.dims)
    ]
    if inside:
        _log.warning(
            "%s: constants of model functions stay as they are, neither pruned nor coded: %s;"
            " inline the functions with onnx.inliner.inline_local_functions to reach them",
            *(path, ", ".join(inside)),
        )


def _heads(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of values that belong to a head by their own name, or by the name or module of a node that reads them.

    Exporters that fold constants name a weight "onnx::MatMul_412" or "val_2". Its node is still "/classifier/MatMul",
    or "node_MatMul_3" with a note of the modules that it came from.
    """
    return frozenset(
        name for node in walk.nodes(graph) for name in node.input if any(map(is_head, (name, node.name, _scopes(node))))
    )


def _scopes(node: onnx.NodeProto) -> str:
    """The modules that a node came from, outer before inner, as torch's exporter lists them; "" where it does not."""
    return next((each.value for each in node.metadata_props if each.key == _SCOPES), "")


def _skeleton(model: onnx.ModelProto, tensors: list[TensorProto]) -> onnx.ModelProto:
    """A copy of the model from which `tensors` were taken, with a declaration without data in place of each."""
    skeleton = duplicate(model)
    graph = skeleton.graph
    for tensor in tensors:
        graph.initializer.append(declare(tensor.name, tensor.data_type, tensor.dims))
    constants = {tensor.name for tensor in (graph.initializer if model.ir_version < 4 else tensors)}
    for at in reversed(range(len(graph.input))):
        if graph.input[at].name in constants:
            del graph.input[at]
    skeleton.ir_version = max(4, model.ir_version)  # before 4, initializers have to be inputs
    return skeleton


def _stores(path: Path, tensors: list[TensorProto]) -> tuple[Path, ...]:
    """The model's file, and those of its external data."""
    outside = [tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL]
    external = {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}
    return (path, *(path.parent / name for name in sorted(external)))


def _weight(tensor: TensorProto, path: Path, heads: frozenset[str], unpacked: Unpacked) -> Weight:
    return Weight(
        name=tensor.name,
        shape=tuple(tensor.dims),
        dtype=np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)),
        read_part=data_reader(tensor, path, unpacked),
        head=tensor.name in heads,
    )
