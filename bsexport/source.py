"""What pack reads: a graph without weights, and named tensors that are read lazily, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx


@dataclass(frozen=True)
class Weight:
    """One named tensor of the source, read when it is asked for.

    name: the checkpoint's name (Hugging Face) or the initializer's name (ONNX).
    shape: as stored, every dimension at least 1.
    dtype: numpy or ml_dtypes dtype of the tensor in the graph. `read` returns that dtype.
    read: returns a fresh or read-only C-ordered array of `shape`; called more than once.
    ties: other names of the same tensor in the checkpoint.
    head: part of the task head (pooler, classifier), protected from pruning by default.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], npt.NDArray[Any]]
    ties: tuple[str, ...] = ()
    head: bool = False


@dataclass(frozen=True)
class Source:
    """A model to pack.

    name: the folder's or file's base name; the default output is `./NAME-bsx`.
    task: pipeline task name ("text-classification", ...), or None for an ONNX file.
    graph: the cleaned graph; every tensor of `weights` stands in it as an initializer of the same name, dims and
        data type, with data_location EXTERNAL and no data. Small constants (see graph.clean) stay inline.
    weights: in the order in which they are stored.
    files: what the device needs beside the graph (config.json, tokenizer or image-processor files), by base name.
    """

    name: str
    task: str | None
    graph: onnx.ModelProto
    weights: tuple[Weight, ...]
    files: tuple[Path, ...]
