"""What pack reads: a graph without weights, and named tensors that are read lazily, in parts."""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bsexport.errors import SourceError
from bsexport_runtime.package import ENCODER, MANIFEST

DEVICE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "source.spm",
    "target.spm",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "preprocessor_config.json",
    "processor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
"""What a device may need beside the graph, to make inputs and to name outputs. Names of folders (1_Pooling/config.json)
do not survive a flat copy."""

_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")  # how Python reads a byte of a file's name that is not UTF-8


@dataclass(frozen=True)
class Weight:
    """One named tensor of the source, read when it is asked for, whole or in parts.

    name: the checkpoint's name (Hugging Face) or the initializer's name (ONNX).
    shape: as stored, every dimension at least 1.
    dtype: numpy or ml_dtypes dtype of the tensor in the graph, in which it is read.
    read_part: weights begin to end - 1 of the row-major tensor, a fresh or read-only array of one dimension; called
        more than once, and by several threads.
    ties: other names of the same tensor in the checkpoint.
    head: part of the task head (pooler, classifier), protected from pruning by default.
    constant: made by the model's code, such as a table of positions; not in the checkpoint, so never pruned or coded.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read_part: Callable[[int, int], npt.NDArray[Any]]
    ties: tuple[str, ...] = ()
    head: bool = False
    constant: bool = False

    def read(self) -> npt.NDArray[Any]:
        """The whole tensor, fresh or read-only, C-ordered, of `shape`."""
        return self.read_part(0, self.size).reshape(self.shape)

    @property
    def size(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    @property
    def names(self) -> tuple[str, ...]:
        """Its own name and those of its ties: a glob may use any of them."""
        return (self.name, *self.ties)


@dataclass(frozen=True)
class Source:
    """A model to pack.

    name: the folder's or file's base name (`default_name`); the default output is `./NAME-bsx`.
    task: pipeline task name ("text-classification", ...), or None for an ONNX file.
    graph: the cleaned graph; every tensor of `weights` stands in it as an initializer of the same name, dims and
        data type, with data_location EXTERNAL and no data. Small constants (see graph.clean) stay inline.
    encoder: of an encoder-decoder, whose decoder is `graph`: the encoder's graph, in the same form; a tensor of
        `weights` stands in one of the two, or in both. None for all other models.
    weights: in the order in which they are stored.
    files: what the device needs beside the graph (config.json, tokenizer or image-processor files), by base name.
    stores: the files that the weights are read from, as far as there are any.
    inline: names of the tensors of the model that stay in the graph, values and all: small, or for no blob to hold.
    """

    name: str
    task: str | None
    graph: onnx.ModelProto
    weights: tuple[Weight, ...]
    files: tuple[Path, ...]
    inline: tuple[str, ...] = ()
    encoder: onnx.ModelProto | None = None
    stores: tuple[Path, ...] = ()

    @property
    def graphs(self) -> dict[str, onnx.ModelProto]:
        """Its graphs, by how the names of their files begin in a package."""
        return {"": self.graph} | ({} if self.encoder is None else {ENCODER: self.encoder})


@dataclass(frozen=True)
class InMemory:
    """Reads parts of a tensor that is there already."""

    array: npt.NDArray[Any]

    def __call__(self, begin: int, end: int) -> npt.NDArray[Any]:
        """See `Weight.read_part`."""
        return self.array.reshape(-1)[begin:end]


def default_name(model: str) -> str:
    """The name of a model that a user named: the base name of its directory, file or hub id, links not followed.

    It is text in any case: a character that no UTF-8 can write, from a file name of other bytes, becomes "_".
    """
    path = Path(model)
    named = path if path.name not in ("", "..") else path.resolve()
    return _LONE_SURROGATE.sub("_", named.stem if is_onnx(named) else named.name)


def is_onnx(path: Path) -> bool:
    """Whether a path is named as ONNX files are, in capitals or not."""
    return path.suffix.lower() == ".onnx"


def device_files(folder: Path) -> tuple[Path, ...]:
    """Those of DEVICE_FILES that lie in `folder`, in that order."""
    return tuple(path for path in (folder / name for name in DEVICE_FILES) if path.is_file())


def open_source(model: str, *, task: str | None = None, trust_remote_code: bool = False) -> Source:
    """Open what a user named: a Hugging Face directory, an .onnx file or a hub id; weights are read later, one by one.

    task: pipeline task that the graph is exported for; default: what config.json says. Not for .onnx files.
    Raises SourceError or ExportError, which say what was found and what to do.
    """
    path = Path(model)
    is_one_file = is_file(path)
    if is_file(path / MANIFEST):
        raise SourceError(f"{model}: is a package already; expected the model it was made from, or see bsexport unpack")
    if is_one_file or is_onnx(path):
        if task is not None:
            raise SourceError(
                f"{model}: --task is for Hugging Face models; an .onnx file has the one graph that it has"
            )
        from bsexport.graph.read import read_onnx

        return read_onnx(path)
    try:
        from bsexport.graph.export import export
    except ImportError as error:
        raise SourceError(
            f"{model}: reading Hugging Face models needs {error.name}; "
            "run pip install 'bsexport[hf]', or give an .onnx file"
        ) from error
    return export(model, task, trust_remote_code=trust_remote_code)


def is_file(path: Path) -> bool:
    """Whether a file stands there. Raises SourceError if the path cannot be looked up."""
    try:
        return stat.S_ISREG(path.stat().st_mode)  # Path.is_file, by Python's version, hides or raises the errors below
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise SourceError(
            f"{path}: cannot be looked up: {error.strerror}; give a Hugging Face directory, a hub id or an .onnx file"
        ) from error
