"""Hugging Face model directories: which tensors they hold, and one tensor at a time as a numpy array.

Only safetensors files are read. They are mapped, not loaded, so the private memory in use is that of the one tensor
being read. Pickles are never opened, because unpickling runs whatever code the file holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (teaches numpy the name "bfloat16", which safetensors asks it for)
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from bsexport.errors import SourceError
from bsexport.graph.heads import is_head
from bsexport.source import DEVICE_FILES, Weight, device_files

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"

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

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_OTHERS = {
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """One tensor of a checkpoint: `dtype` is what `Checkpoint.read` returns, `stored_dtype` the file's own word."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored_dtype: str
    file: str


class Checkpoint:
    """A model directory that is open for reading.

    directory: the folder. config: config.json, parsed. tensors: by name, in the order in which they are stored.
    """

    def __init__(
        self, directory: Path, config: dict[str, Any], tensors: Mapping[str, Stored], mapped: Mapping[str, Any]
    ) -> None:
        self.directory = directory
        self.config = config
        self.tensors = tensors
        self._mapped = mapped

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Reads config.json and the headers of the weight files; no tensor is read.

        Raises SourceError if the folder, config.json or the weights are missing, are damaged, or are pickles.
        """
        config = read_config(directory)
        shards = _shards(directory)
        mapped = {file: _map(directory / file) for file in shards}
        tensors: dict[str, Stored] = {}
        for file, expected in shards.items():
            tensors |= _headers(directory / file, mapped[file], expected)
        if not tensors:
            raise SourceError(f"{directory / next(iter(shards))}: holds no tensor; save the model again")
        return cls(directory, config, tensors, mapped)

    def read(self, name: str) -> npt.NDArray[Any]:
        """The tensor `name` as a fresh C-ordered array of its shape.

        float16, bfloat16 and float64 come as float32, in which bsexport does all its arithmetic (float64 is rounded to
        it); integers and booleans come as stored. Raises SourceError if the file cannot be read any more.
        """
        stored = self.tensors[name]
        try:
            array: npt.NDArray[Any] = self._mapped[stored.file].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise _damaged(self.directory / stored.file, error) from error
        return np.ascontiguousarray(array, dtype=stored.dtype).reshape(stored.shape)

    def weights(self) -> tuple[Weight, ...]:
        """Every tensor of the files, whether a task's graph uses it or not; tied tensors are usually stored once."""
        return tuple(
            Weight(name, stored.shape, stored.dtype, partial(self.read, name), head=is_head(name))
            for name, stored in self.tensors.items()
        )

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


def _map(path: Path) -> Any:
    """The mapped file. The library checks that the header's ranges cover the file exactly."""
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path}: truncated or damaged ({error}); download or save the model again")


def _headers(path: Path, mapped: Any, expected: frozenset[str] | None) -> dict[str, Stored]:
    names: list[str] = mapped.offset_keys()
    if expected is not None:
        if absent := sorted(expected - set(names)):
            raise SourceError(f"{path}: the index promises {absent[0]!r}, which is not there; download the model again")
        names = [name for name in names if name in expected]
    tensors = {}
    for name in names:
        header = mapped.get_slice(name)
        stored_dtype: str = header.get_dtype()
        dtype = _dtype(path, name, stored_dtype)
        tensors[name] = Stored(name, tuple(header.get_shape()), dtype, stored_dtype, path.name)
    return tensors


def _dtype(path: Path, name: str, stored_dtype: str) -> np.dtype[Any]:
    if stored_dtype in _FLOATS:
        return np.dtype(np.float32)
    if stored_dtype in _OTHERS:
        return np.dtype(_OTHERS[stored_dtype])
    raise SourceError(
        f"{path}: {name!r} is stored in {stored_dtype}, expected a float of 16 bits or more; give the unquantised model"
    )
