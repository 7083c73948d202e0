"""Back from a package to what other tools read: a plain .onnx file, or a directory that transformers loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from bsexport.errors import OutputError, SourceError
from bsexport.graph.standard import write_standard
from bsexport.output import Staging
from bsexport_runtime import codec
from bsexport_runtime.errors import BlobError
from bsexport_runtime.package import CODED_GRAPH, PLAIN_GRAPH, WEIGHTS, Package, Tensor

Array = npt.NDArray[Any]
CHECKPOINT = "model.safetensors"


def unpack(path: Path, out: Path, *, force: bool = False) -> Path:
    """Write the decoded package to `out`: a standalone graph if its name ends in .onnx, else a directory.

    The .onnx file needs standard operators only. The directory holds model.safetensors and the package's other files,
    and is what transformers' from_pretrained reads; only a package made from a Hugging Face model has them.
    Raises OutputError if `out` exists and force is not given, PackageError if the package is damaged.
    """
    package = Package(path)
    if out.suffix == ".onnx":
        return _to_onnx(package, out, force=force)
    return _to_directory(package, out, force=force)


def read_tensor(package: Package, tensor: Tensor) -> Array:
    """One decoded tensor in the type of the graph, with ml_dtypes for what numpy lacks. Raises PackageError."""
    data = bytearray(package.head(tensor).nbytes)
    try:
        codec.decode_into([package.blob(tensor)], [data], threads=1)
    except BlobError as error:
        raise package.damaged(tensor, error) from error
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(int(tensor.dtype)))
    return np.frombuffer(data, dtype).reshape(tensor.shape)


def _to_onnx(package: Package, out: Path, *, force: bool) -> Path:
    tensors = {tensor.name: tensor for tensor in package.tensors}
    graph = onnx.load(package.read(PLAIN_GRAPH), load_external_data=False)
    with Staging(out, force=force, replaceable=Path.is_file) as staging:
        write_standard(graph, staging.path / out.name, lambda name: read_tensor(package, tensors[name]))
        staging.publish_files()
    return out


def _to_directory(package: Package, out: Path, *, force: bool) -> Path:
    if package.manifest.get("task") is None:
        raise OutputError(
            f"{package.path}: was made from an .onnx file, so there is no Hugging Face directory to go back to; "
            f"give a file, -o {out}.onnx"
        )
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise SourceError(
            f"{out}: writing it needs {error.name}; run pip install 'bsexport[hf]', or give -o NAME.onnx"
        ) from error
    arrays = {tensor.name: read_tensor(package, tensor) for tensor in package.tensors}
    inline = set(package.manifest["inline"])
    graph = onnx.load(package.read(PLAIN_GRAPH), load_external_data=False).graph
    arrays |= {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in inline}
    with Staging(out, force=force, replaceable=lambda path: (path / CHECKPOINT).is_file()) as staging:
        save_file(arrays, staging.path / CHECKPOINT, metadata={"format": "pt"})
        (staging.path / CHECKPOINT).chmod(0o644)  # the library makes it readable by its owner alone
        for name in package.files:
            if name not in (WEIGHTS, CODED_GRAPH, PLAIN_GRAPH):
                shutil.copyfile(package.read(name), staging.path / name)
        staging.publish_directory()
    return out
