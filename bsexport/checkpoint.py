"""Hugging Face model directories: which tensors they hold, and any part of one as a numpy array.

Only safetensors files are read, and of them no more than is asked for. Pickles are never opened, because unpickling
runs whatever code the file holds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from bsexport.errors import SourceError
from bsexport.graph.heads import is_head
from bsexport.source import DEVICE_FILES, Weight, device_files

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
PART = 1 << 20  # elements that are compared together
LENGTH_BYTES = 8  # of a safetensors header's length, with which the file begins

# What stands in a folder without safetensors, and what to do about it; the first that is there is named.
_TO_SAFETENSORS = (
    'convert it once where you trust it: python -c "from transformers import AutoModel as M; '
    "M.from_pretrained('{directory}').save_pretrained('{directory}')\" (use the AutoModelFor... class of your task)"
)
_OTHER_WEIGHTS = (
    ("pytorch_model.bin.index.json", "a sharded pickle, which bsexport does not open; " + _TO_SAFETENSORS),
    ("pytorch_model.bin", "a pickle, which bsexport does not open; " + _TO_SAFETENSORS),
    ("adapter_model.safetensors", "an adapter without its base model; merge it (peft: merge_and_unload) and save that"),
    ("tf_model.h5", "TensorFlow weights; save the model as safetensors with save_pretrained"),
    ("flax_model.msgpack", "Flax weights; save the model as safetensors with save_pretrained"),
)

_SHARD = re.compile(r"[^/\\]+\.safetensors")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")

_STORED: dict[str, np.dtype[Any]] = {
    word: np.dtype(dtype)
    for word, dtype in {
        "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
        "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
        "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
    }.items()
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """One tensor of a checkpoint: `dtype` is what `Checkpoint.read` returns, `stored_dtype` the file's own word.

    offset: where its first byte lies in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored_dtype: str
    file: str
    offset: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


class Checkpoint:
    """A model directory that is open for reading.

    directory: the folder, absolute, since processes of a sweep may stand elsewhere. config: config.json, parsed.
    tensors: by name, in the order in which they are stored.
    """

    def __init__(self, directory: Path, config: dict[str, Any], tensors: Mapping[str, Stored]) -> None:
        self.directory = directory
        self.config = config
        self.tensors = tensors

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Reads config.json and the headers of the weight files; no tensor is read.

        Raises SourceError if the folder, config.json or the weights are missing, are damaged, or are pickles.
        """
        config = read_config(directory)
        shards = _shards(directory)
        tensors: dict[str, Stored] = {}
        for file, expected in shards.items():
            tensors |= _headers(directory / file, expected)
        if not tensors:
            raise SourceError(f"{directory / next(iter(shards))}: holds no tensor; save the model again")
        return cls(directory.absolute(), config, tensors)

    def read(self, name: str) -> npt.NDArray[Any]:
        """The tensor `name` as a fresh C-ordered array of its shape, as `read_part` gives its parts."""
        stored = self.tensors[name]
        return self.read_part(name, 0, stored.size).reshape(stored.shape)

    def read_part(self, name: str, begin: int, end: int) -> npt.NDArray[Any]:
        """Elements begin to end - 1 of the row-major tensor `name` as a fresh array of one dimension.

        float16, bfloat16 and float64 come as float32, in which bsexport does all its arithmetic (float64 is rounded to
        it); integers and booleans come as stored. Raises SourceError if the file cannot be read any more.
        """
        stored, path = self.tensors[name], self.directory / self.tensors[name].file
        dtype = _STORED[stored.stored_dtype]
        try:
            array = np.fromfile(path, dtype, end - begin, offset=stored.offset + begin * dtype.itemsize)
        except OSError as error:
            raise _damaged(path, error) from error
        if array.size != end - begin:
            raise SourceError(f"{path}: was cut short while it was read; download or save the model again")
        return _widened(array) if dtype.kind not in "iub" else array

    def same(self, one: str, other: str) -> bool:
        """Whether two tensors have the same shape and values, held against each other in parts."""
        if self.tensors[one].shape != self.tensors[other].shape:
            return False
        size = self.tensors[one].size
        parts = ((start, min(start + PART, size)) for start in range(0, size, PART))
        return all(np.array_equal(self.read_part(one, *part), self.read_part(other, *part)) for part in parts)

    def weights(self) -> tuple[Weight, ...]:
        """Every tensor of the files, whether a task's graph uses it or not; tied tensors are usually stored once."""
        return tuple(
            Weight(name, stored.shape, stored.dtype, partial(self.read_part, name), head=is_head(name))
            for name, stored in self.tensors.items()
        )

    def stores(self) -> tuple[Path, ...]:
        """The files that the tensors are read from."""
        return tuple(self.directory / file for file in dict.fromkeys(each.file for each in self.tensors.values()))

    def files(self) -> tuple[Path, ...]:
        """The configuration, tokenizer and image-processor files that are there, in the order of DEVICE_FILES."""
        return device_files(self.directory)


def locate(model: Path, *, code: bool = False) -> Path:
    """The folder of `model`: itself, or for a Hub id ("org/name", "name") the snapshot in the local cache.

    A folder always wins. A snapshot is downloaded where it is not cached: configuration, tokenizer and safetensors
    files only, and with `code` the Python files of models that bring their own.
    Raises SourceError if there is no such folder and no such Hub id, or if the Hub cannot be reached.
    """
    hub_id = model.as_posix()
    if model.exists() or not _HUB_ID.fullmatch(hub_id):
        return model
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                hub_id, allow_patterns=[*DEVICE_FILES, WEIGHTS, INDEX, "model-*-of-*.safetensors", *["*.py"] * code]
            )
        )
    except (OSError, ValueError) as error:  # the client's own errors all derive from these two
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{hub_id}: no such folder, and no such model can be had from the Hugging Face Hub ({reason}); "
            "give a folder, or check the name and the connection"
        ) from error


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of a model directory. Raises SourceError if either is missing or the file is damaged."""
    if not directory.exists():
        raise SourceError(f"{directory}: no such folder; give a Hugging Face model folder, a Hub id or an .onnx file")
    if not directory.is_dir():
        raise SourceError(f"{directory}: is a file, expected a Hugging Face model folder or an .onnx file")
    if not (directory / CONFIG).is_file():
        raise SourceError(f"{directory}: no {CONFIG}; expected a folder that save_pretrained wrote")
    return read_json(directory / CONFIG)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises SourceError if the file cannot be read, or holds no JSON or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: cannot be read as JSON ({error}); save or download the model again") from error
    if not isinstance(value, dict):
        raise SourceError(f"{path}: holds a JSON {type(value).__name__}, expected an object")
    return value


def _shards(directory: Path) -> dict[str, frozenset[str] | None]:
    """File name -> names of the tensors that the index promises there (None: whatever the file holds)."""
    if (directory / WEIGHTS).is_file():
        return {WEIGHTS: None}
    if (directory / INDEX).is_file():
        return _indexed(directory / INDEX)
    for name, advice in _OTHER_WEIGHTS:
        if (directory / name).is_file():
            raise SourceError(f"{directory / name}: is {advice.format(directory=directory)}")
    raise SourceError(f"{directory}: no weights; expected {WEIGHTS} or {INDEX}")


def _indexed(index: Path) -> dict[str, frozenset[str] | None]:
    weight_map = read_json(index).get("weight_map")
    if not (weight_map and isinstance(weight_map, dict) and all(isinstance(file, str) for file in weight_map.values())):
        raise SourceError(f"{index}: no weight_map of tensor names to file names; save or download the model again")
    shards: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        shards.setdefault(file, set()).add(name)
    for file in sorted(shards):
        if not _SHARD.fullmatch(file):
            raise SourceError(f"{index}: names {file!r}, expected a safetensors file in the same folder")
        if not (index.parent / file).is_file():
            raise SourceError(f"{index}: names {file}, which is missing; download or save the model again")
    return {file: frozenset(shards[file]) for file in sorted(shards)}


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path}: truncated or damaged ({error}); download or save the model again")


def _headers(path: Path, expected: frozenset[str] | None) -> dict[str, Stored]:
    """The tensors of a file that are expected, or all. The library checks that their ranges cover the file exactly."""
    try:
        with safe_open(path, framework="numpy") as header, path.open("rb") as file:
            names: list[str] = header.offset_keys()
            end = LENGTH_BYTES + int.from_bytes(file.read(LENGTH_BYTES), "little")
            found = {}
            for name in names:
                one = header.get_slice(name)
                stored_dtype: str = one.get_dtype()
                dtype = _dtype(path, name, stored_dtype)
                shape = tuple(one.get_shape())
                found[name] = Stored(name, shape, dtype, stored_dtype, path.name, end)
                end += found[name].size * _STORED[stored_dtype].itemsize
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if expected is None:
        return found
    if absent := sorted(expected - found.keys()):
        raise SourceError(f"{path}: the index promises {absent[0]!r}, which is not there; download the model again")
    return {name: stored for name, stored in found.items() if name in expected}


def _dtype(path: Path, name: str, stored_dtype: str) -> np.dtype[Any]:
    if stored_dtype not in _STORED:
        raise SourceError(
            f"{path}: {name!r} is stored in {stored_dtype}, expected a float of 16 bits or more; give the unquantised "
            "model"
        )
    dtype = _STORED[stored_dtype]
    return dtype if dtype.kind in "iub" else np.dtype(np.float32)


def _widened(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The weights in float32; of float16, numpy's own way takes three times as long."""
    if array.dtype != np.float16:
        return array.astype(np.float32, copy=False)
    bits = array.view(np.int16)
    magnitudes = bits & np.int16(0x7FFF)
    if magnitudes.max(initial=0) >= 0x7C00:  # an infinity or a NaN
        return array.astype(np.float32)
    wide = magnitudes.astype(np.int32)
    wide <<= 13  # where float32 has the same exponent and mantissa, but for the exponents' biases
    weights = wide.view(np.float32)
    weights *= np.float32(2.0**112)
    wide |= bits.astype(np.int32) & np.int32(-(2**31))
    return weights
