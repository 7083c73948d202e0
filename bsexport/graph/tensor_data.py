"""Find and read the data of one TensorProto, inside the model file or outside, with every declared size checked."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from bsexport.errors import SourceError

_SUB_BYTE_BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}
"""Bits per element of the types that ONNX packs into a byte stream."""


def data_reader(tensor: TensorProto, model: Path, unpacked: Unpacked) -> Callable[[int, int], npt.NDArray[Any]]:
    """Check where the data of `tensor` lies and return a function that reads parts of it, see `source.Weight`.

    The function returns an array of the tensor's dtype, fresh or read-only, and raises SourceError if an
    external file has gone or shrunk meanwhile. Only for types of whole bytes.
    unpacked: shared by the tensors of a model. Raises SourceError if the dims, the data and the external place do not
    agree.
    """
    where = _where(tensor, model)
    nbytes = packed_bytes(tensor, model)
    if tensor.data_location == TensorProto.EXTERNAL:
        place = _external(tensor, model, nbytes, where)
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        size = dtype.itemsize
        return lambda begin, end: np.frombuffer(place.read(begin * size, (end - begin) * size), dtype=dtype)
    _check_inline(tensor, nbytes, where)
    return lambda begin, end: unpacked.values(tensor)[begin:end]


class Unpacked:
    """The values of the inline tensor that was read last: a TensorProto gives a fresh copy each time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tensor: TensorProto | None = None
        self._values: npt.NDArray[Any] = np.empty(0)

    def values(self, tensor: TensorProto) -> npt.NDArray[Any]:
        """All values of a tensor, in one dimension."""
        with self._lock:
            if self._tensor is not tensor:
                self._tensor, self._values = None, np.empty(0)  # before the next ones come
                self._values = np.asarray(numpy_helper.to_array(tensor)).reshape(-1)
                self._tensor = tensor
            return self._values


def make_inline(tensor: TensorProto, model: Path) -> None:
    """Check the data of `tensor` as `data_reader` does and, if it is external, move it into the TensorProto."""
    where = _where(tensor, model)
    nbytes = packed_bytes(tensor, model)
    if tensor.data_location != TensorProto.EXTERNAL:
        _check_inline(tensor, nbytes, where)
        return
    tensor.raw_data = _external(tensor, model, nbytes, where).read(0, nbytes)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def packed_bytes(tensor: TensorProto, model: Path) -> int:
    """Bytes that the tensor's dims and type ask for; 0 for strings. Nothing is allocated.

    Raises SourceError for an unknown type or a negative dim.
    """
    where = _where(tensor, model)
    if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type == TensorProto.UNDEFINED:
        raise SourceError(f"{where}: data type {tensor.data_type} is unknown to the installed onnx; upgrade onnx")
    if any(dim < 0 for dim in tensor.dims):
        raise SourceError(f"{where}: shape {list(tensor.dims)} has a negative dimension; the file is damaged")
    elements = math.prod(tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        return 0
    bits = _SUB_BYTE_BITS.get(TensorProto.DataType.Name(tensor.data_type))
    if bits is not None:
        return int((elements * bits + 7) // 8)
    return int(elements * np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


def _where(tensor: TensorProto, model: Path) -> str:
    return f"{model}: tensor {tensor.name!r}"


def _check_inline(tensor: TensorProto, nbytes: int, where: str) -> None:
    """Raise SourceError unless the data in the TensorProto is as long as its dims say."""
    if tensor.HasField("segment"):
        raise SourceError(f"{where} is stored in segments, which is not supported; save the model anew with onnx.save")
    elements = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        found, expected, unit = len(tensor.raw_data), nbytes, "bytes"
    else:
        name = TensorProto.DataType.Name(tensor.data_type)
        found, expected, unit = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))), elements, "values"
        if name.startswith("COMPLEX"):
            expected *= 2
        elif name in _SUB_BYTE_BITS and not name.startswith("FLOAT6"):
            expected = nbytes  # packed bytes, one per int32
    if found != expected:
        shape = list(tensor.dims)
        raise SourceError(f"{where}: shape {shape} needs {expected} {unit}, the file holds {found}; it is damaged")


@dataclass(frozen=True)
class _Place:
    """A checked range of an external data file."""

    file: Path
    offset: int
    nbytes: int
    where: str

    def read(self, start: int, nbytes: int) -> bytes:
        try:
            with self.file.open("rb", buffering=0) as stream:
                stream.seek(self.offset + start)
                data = stream.read(nbytes)
        except OSError as error:
            raise SourceError(f"{self.where}: cannot read {self.file}: {error.strerror}") from error
        if len(data) != nbytes:
            raise SourceError(f"{self.where}: {self.file} shrank while it was being read")
        return data


def _external(tensor: TensorProto, model: Path, nbytes: int, where: str) -> _Place:
    """Check the external_data entries of `tensor` against the file system and its dims."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if tensor.data_type == TensorProto.STRING:
        raise SourceError(f"{where}: strings cannot be external data; the file is damaged")
    file = _external_file(entries.get("location", ""), model, where)
    offset = _entry(entries, "offset", 0, where)
    length = _entry(entries, "length", nbytes, where)
    if length != nbytes:
        shape = list(tensor.dims)
        raise SourceError(f"{where}: shape {shape} needs {nbytes} bytes, its external data is {length} bytes long")
    size = file.stat().st_size
    if offset + nbytes > size:
        raise SourceError(
            f"{where}: external data ends at byte {offset + nbytes}, {file} has {size}; the file is incomplete"
        )
    return _Place(file, offset, nbytes, where)


def _entry(entries: dict[str, str], key: str, default: int, where: str) -> int:
    text = entries.get(key)
    if text is None:
        return default
    # Digits only, and no more of them than the largest 64-bit number has: int() would take "1_0" and " 7".
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise SourceError(f"{where}: external data {key} {text!r} is not a number of bytes; the file is damaged")
    return int(text)


def _external_file(location: str, model: Path, where: str) -> Path:
    """The file at `location`, which must lie in the model's own folder, links followed: it is read without asking."""
    # A Windows path sees both separators and drives, so a file from there is judged the same here.
    path = PureWindowsPath(location)
    if not path.parts or "\0" in location:
        raise SourceError(f"{where}: external data location {location!r} names no file; the file is damaged")
    if path.is_absolute() or path.drive or path.root or ".." in path.parts:
        raise SourceError(
            f"{where}: external data location {location!r} leaves the model's folder; save it with a plain file name"
        )
    file = model.parent / location
    try:
        real = file.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        raise SourceError(f"{where}: external data file {file} is missing; it must lie beside the model") from None
    if not real.is_relative_to(model.parent.resolve()):
        raise SourceError(
            f"{where}: external data file {file} is a link out of the model's folder; copy the file there"
        )
    if not real.is_file():
        raise SourceError(f"{where}: external data location {file} is not a regular file")
    return file
