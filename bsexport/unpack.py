"""The way back from a package to what other tools read: a plain .onnx file, or a directory that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper, numpy_helper

from bsexport.errors import OutputError
from bsexport.graph.standard import write_standard
from bsexport.output import Staging, check_output, disk_errors
from bsexport.slabs import slabs
from bsexport_runtime import codec
from bsexport_runtime.errors import BlobError
from bsexport_runtime.package import GRAPH_FILES, PLAIN_GRAPH, WEIGHTS, Package, Tensor

Array = npt.NDArray[Any]

CHECKPOINT = "model.safetensors"
PRODUCER = "bsexport unpack"  # stands in every output, so that --force never replaces a model that is somebody's own
CONFIG = "config.json"
HEADER_ALIGNMENT = 8  # bytes; safetensors pads its header with spaces
DTYPE_KEYS = ("dtype", "torch_dtype")  # config.json says which type the checkpoint has: transformers 5, before it


def unpack(path: Path, out: Path, *, force: bool = False) -> Path:
    """Write the decoded package to `out`: a standalone graph if its name ends in .onnx, else a directory.

    The .onnx file needs standard operators only; weights beyond 2 GB go to a second file, `out`.data. Of an
    encoder-decoder it is the decoder's, and the encoder's stands beside it, under the name encoder_`out`. The directory
    holds model.safetensors, whose names are those of the checkpoint, and the package's other files, and is what
    transformers' from_pretrained reads; only a package made from a Hugging Face model can be turned into one.
    A directory takes memory for parts of a tensor; a .onnx file for its largest tensor, twice if it is transposed, or
    below 2 GB for all weights, twice.
    Raises OutputError if `out` exists and force is not given, PackageError if the package is damaged.
    """
    package = Package(path)
    if out.suffix == ".onnx":
        _to_onnx(package, out, force=force)
    else:
        _to_directory(package, out, force=force)
    return out


def read_tensor(package: Package, tensor: Tensor) -> Array:
    """One decoded tensor in the type of the graph, with ml_dtypes for what numpy lacks. Raises PackageError."""
    return read_part(package, tensor, 0, package.head(tensor).weights).reshape(tensor.shape)


def read_part(package: Package, tensor: Tensor, begin: int, end: int) -> Array:
    """Weights begin to end - 1 of a decoded tensor, see `source.Weight.read_part`. Raises PackageError."""
    try:
        part = codec.decode_part(package.blob(tensor), begin, end)
    except BlobError as error:
        raise package.damaged(tensor, error) from error
    dtype = dtype_of(tensor)
    # What numpy lacks comes widened to float32 (bfloat16), or as its bits.
    return part.astype(dtype, copy=False) if part.dtype.itemsize != dtype.itemsize else part.view(dtype)


def dtype_of(tensor: Tensor) -> np.dtype[Any]:
    """The numpy or ml_dtypes type of a tensor of a package."""
    dtype: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(int(tensor.dtype)))
    return dtype


def _to_onnx(package: Package, out: Path, *, force: bool) -> None:
    tensors = {tensor.name: tensor for tensor in package.tensors}
    for prefix in package.graphs:
        check_output(out.with_name(prefix + out.name), force=force, replaceable=_is_unpacked_graph)
    with Staging(out, force=force, replaceable=_is_unpacked_graph) as staging:
        for prefix in package.graphs:
            graph = onnx.load_model_from_string(package.read_bytes(prefix + PLAIN_GRAPH))
            graph.producer_name = PRODUCER
            file = staging.path / (prefix + out.name)
            with disk_errors(out):
                write_standard(graph, file, lambda name: read_tensor(package, tensors[name]))
        staging.publish_files()


def _to_directory(package: Package, out: Path, *, force: bool) -> None:
    if package.manifest.get("task") is None:
        raise OutputError(
            f"{package.path}: was made from an .onnx file, so there is no Hugging Face directory to go back to; "
            f"give a file, -o {out}.onnx"
        )
    files = [name for name in package.files if name not in (WEIGHTS, *GRAPH_FILES)]
    with Staging(out, force=force, replaceable=_is_unpacked_directory) as staging:
        with disk_errors(out):
            _write_checkpoint(package, staging.path / CHECKPOINT)
            for file in files:
                (staging.path / file).write_bytes(package.read_bytes(file))
            _widen_config(staging.path / CONFIG)
        staging.publish_directory()


def _is_unpacked_graph(path: Path) -> bool:
    try:
        return path.is_file() and onnx.load(path, load_external_data=False).producer_name == PRODUCER
    except DecodeError:
        return False


def _is_unpacked_directory(path: Path) -> bool:
    checkpoint = path / CHECKPOINT
    if not checkpoint.is_file():
        return False
    with checkpoint.open("rb") as file:
        return f'"producer": "{PRODUCER}"'.encode() in file.read(len(PRODUCER) + 200)


def _write_checkpoint(package: Package, path: Path) -> None:
    """model.safetensors, with one slab in memory at a time: uint64 length of the header, header in JSON, data."""
    stored = [tensor for tensor in package.tensors if not tensor.info["constant"]]
    inline = _inline(package)
    sizes = [(tensor.name, dtype_of(tensor), tensor.shape, package.head(tensor).nbytes) for tensor in stored]
    sizes += [(name, array.dtype, array.shape, array.nbytes) for name, array in inline.items()]
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "producer": PRODUCER}}
    end = 0
    for name, dtype, shape, nbytes in sizes:
        start, end = end, end + nbytes
        header[name] = {"dtype": _safetensors_dtype(dtype), "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in stored:
            head = package.head(tensor)
            for slab in slabs(head.shape, (head.block_rows, head.block_cols)):
                file.write(read_part(package, tensor, slab.begin, slab.end).tobytes())
            package.release(tensor)
        for array in inline.values():
            file.write(array.tobytes())


def _inline(package: Package) -> dict[str, Array]:
    """The tensors of the model that no blob can hold, such as scalars, by name: they stand in the graph."""
    names = set(package.manifest["inline"])
    graphs = [onnx.load_model_from_string(package.read_bytes(prefix + PLAIN_GRAPH)).graph for prefix in package.graphs]
    tensors = (tensor for graph in graphs for tensor in graph.initializer)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors if tensor.name in names}


def _safetensors_dtype(dtype: np.dtype[Any]) -> str:
    """The name that safetensors gives a numpy type: F32, I64, U8, BOOL."""
    return "BOOL" if dtype == np.bool_ else f"{dtype.kind.upper()}{8 * dtype.itemsize}"


def _widen_config(path: Path) -> None:
    """Let config.json say float32, as the tensors are: transformers would round them to what it says."""
    config = json.loads(path.read_text(encoding="utf-8"))
    said = {key: "float32" for key in DTYPE_KEYS if key in config}
    if said != {key: config[key] for key in said}:
        path.write_text(json.dumps(config | said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
