"""The sizes of inputs at which a graph is measured, and made-up inputs of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

import bsexport_runtime
from bsexport.errors import BenchError
from bsexport.inputs import has_size, index_limits, sample_inputs
from bsexport_runtime.session import own_options

Inputs = dict[str, npt.NDArray[Any]]

BATCHES = (1,)
LENGTHS = (16, 128)
FATAL = 4  # onnxruntime's log level; on the one below, it logs what it raises


@dataclass(frozen=True)
class Point:
    """One size of the inputs.

    batch: items in one run. length: what the dimensions that the graph leaves open have, besides the batch; None if
    it leaves none open. tokens: in one run; None if no input indexes a table of embeddings.
    """

    batch: int
    length: int | None
    tokens: int | None

    def __str__(self) -> str:
        return f"batch {self.batch}" if self.length is None else f"batch {self.batch}, length {self.length}"


def points(
    session: ort.InferenceSession,
    graph: onnx.GraphProto,
    batches: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
) -> dict[Point, Inputs]:
    """Inputs of every batch with every length; by default BATCHES and LENGTHS, where the graph leaves them open.

    Raises BenchError if a batch or length is given that the graph does not leave open, or that it does not take.
    """
    shapes = [value.shape for value in session.get_inputs() if value.shape]
    batch_open = not all(has_size(shape[0]) for shape in shapes)
    length_open = not all(has_size(dim) for shape in shapes for dim in shape[1:])
    if batches and not batch_open:
        raise BenchError("--batch: the graph takes one batch only; leave the option out")
    if lengths and not length_open:
        raise BenchError("--length: the graph fixes all sizes of its inputs but the batch; leave the option out")
    sizes = product(batches or BATCHES, (lengths or LENGTHS) if length_open else (None,))
    made = dict(_point(session, graph, batch, length) for batch, length in sizes)
    for point, inputs in made.items():
        try:
            session.run(None, inputs)
        except Exception as error:  # onnxruntime's errors have no base class of their own
            reason = " ".join(str(error).split())
            raise BenchError(
                f"{point}: the model does not take it; choose others with --batch and --length ({reason})"
            ) from error
    return made


def silent_session(path: Path, threads: int | None, mode: str = "float32") -> bsexport_runtime.Session:
    """A session over a package that logs nothing: what goes wrong is raised, too."""
    options = own_options(threads)
    options.log_severity_level = FATAL
    return bsexport_runtime.load(path, mode=mode, sess_options=options, threads=threads)


def keep_inputs(made: Mapping[Point, Inputs], folder: Path) -> tuple[list[str], list[str]]:
    """Write the inputs of each point to a file of `folder`; the inputs' names and the files, as a Job has them."""
    files = [str(folder / f"{index}.npz") for index in range(len(made))]
    for file, inputs in zip(files, made.values(), strict=True):
        np.savez(file, *inputs.values())
    return list(next(iter(made.values()))), files


def _point(
    session: ort.InferenceSession, graph: onnx.GraphProto, batch: int, length: int | None
) -> tuple[Point, Inputs]:
    inputs = sample_inputs(session, graph, batch=batch, length=length or 1)
    found = [array.shape[0] for array in inputs.values() if array.ndim]
    tokens = [inputs[name].size for name in index_limits(graph) if name in inputs and inputs[name].ndim == 2]
    return Point(found[0] if found else 1, length, tokens[0] if tokens else None), inputs
