"""A model as the points of its curve share it: exported once, its dense weights in one file, its examples in another.

What is here goes to other processes and machines, which see the same files.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport.errors import SourceError
from bsexport.evaluate.batches import Stored, make_batches
from bsexport.evaluate.examples import Asked, make_examples
from bsexport.evaluate.measure import Measure
from bsexport.evaluate.run import refer
from bsexport.evaluate.subject import Subject
from bsexport.pipeline import Progress, pack
from bsexport.recipe import Recipe
from bsexport.report import Report
from bsexport.source import Source
from bsexport.tasks.data import Data
from bsexport_runtime.package import MANIFEST, WEIGHTS, Package
from bsexport_runtime.session import load

DENSE = Recipe(keep=("*",))
"""Nothing pruned, nothing coded."""


@dataclass(frozen=True)
class Mapped:
    """Reads parts of a tensor from a file that holds it as it is."""

    path: Path
    offset: int
    dtype: np.dtype[Any]

    def __call__(self, begin: int, end: int) -> npt.NDArray[Any]:
        """The part, mapped; see `Weight.read_part`."""
        # Of a Path, memmap would look up at each call where that really is.
        return np.memmap(str(self.path), self.dtype, "r", self.offset + begin * self.dtype.itemsize, (end - begin,))


@dataclass(frozen=True)
class Prepared:
    """What measuring a point of a model takes.

    name: as curves call it. source: whose weights lie in the dense package. batches, measure: see evaluate.
    examples: their number. inputs: names of the graph's. fp32_bytes, weights: of the model. sha256: of the dense
    package's manifest, and so of weights, graph, tokenizer and configuration. columns: of the data, by role.
    """

    name: str
    source: Source
    dense: Path
    batches: Stored
    measure: Measure
    examples: int
    inputs: tuple[str, ...]
    weights: int
    fp32_bytes: int
    sha256: str
    columns: dict[str, str]


def prepare(
    name: str, source: Source, data: Data, asked: Asked, batch_size: int, folder: Path, threads: int, progress: Progress
) -> Prepared:
    """Pack the model dense, and make its examples; a measure that needs the dense model's outputs gets them, too.

    Raises SourceError or DataError if the model and the data do not fit.
    """
    if not source.weights:
        raise SourceError(f"{name}: has no weights that could be pruned or quantised")
    dense = folder / "dense"
    report = pack(source, DENSE, dense, threads=threads, progress=progress)
    session = load(dense, threads=threads)
    subject = Subject(Package(dense), session)
    made = make_examples(subject, replace(data, cache=folder / "cache"), asked)
    if made.measure.dense and "logits" in subject.outputs:
        warnings.warn(f"{data.name}: has no labels, so outputs are held against the dense model's", stacklevel=2)
    batches = make_batches(made.examples, subject, batch_size)
    if made.measure.dense:
        batches = refer(session, batches, made.measure)
    stored = Stored(folder / "batches")
    stored.write(batches)
    summary = report.summary()
    return Prepared(
        name,
        detach(source, dense, report),
        dense,
        stored,
        made.measure,
        made.count,
        tuple(subject.inputs),
        summary["weights"],
        summary["fp32_bytes"],
        hashlib.sha256((dense / MANIFEST).read_bytes()).hexdigest(),
        made.columns,
    )


def detach(source: Source, dense: Path, report: Report) -> Source:
    """The source with its weights read from its dense package, and without files: it can be sent to other processes."""
    weights = tuple(
        replace(weight, read_part=Mapped(dense / WEIGHTS, tensor.place.payload_offset, weight.dtype))
        for weight, tensor in zip(source.weights, report.tensors, strict=True)
    )
    return replace(source, weights=weights, files=())
