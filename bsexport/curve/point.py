"""One point of a curve: prune, quantise and code the model, load the package as a device does, and measure it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bsexport.curve.subject import Prepared
from bsexport.evaluate.measure import summarise
from bsexport.evaluate.run import evaluate
from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.record import finite
from bsexport_runtime.session import load

SIZES = ("weights_bytes", "of_fp32", "bits_per_weight", "entropy_bits", "eg0_bits", "eg_bits", "sparsity")
"""Figures of a package that a point keeps."""


@dataclass(frozen=True)
class Point:
    """A point to measure. recipe: None for the dense model. key: names it among those of all models."""

    model: int
    recipe: Recipe | None

    @property
    def key(self) -> str:
        return f"{self.model}-dense" if self.recipe is None else f"{self.model}-{self.recipe.prune}-{self.recipe.step}"


@contextlib.contextmanager
def packed(
    model: Prepared, point: Point, threads: int, scratch: Path | None = None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The package of a point, while it is needed, and its sizes; there are none of the dense model.

    scratch: the folder to make it in; None: the system's.
    """
    if point.recipe is None:
        yield model.dense, {}
        return
    with tempfile.TemporaryDirectory(prefix="bsexport-", dir=scratch) as folder:
        package = Path(folder) / "package"
        summary = pack(model.source, point.recipe, package, threads=threads).summary()
        yield package, {name: summary[name] for name in SIZES}


def measure_point(
    model: Prepared, point: Point, threads: int, ticks: Path, scratch: Path | None = None
) -> dict[str, Any]:
    """The figures of a point, as plain values.

    ticks: a file that gets a byte for each batch that is done, for whoever shows the progress. scratch: see packed.
    """
    began = time.perf_counter()
    with packed(model, point, threads, scratch) as (package, sizes):
        coded = time.perf_counter()
        session = load(package, threads=threads)
        loaded = time.perf_counter()
    with ticks.open("ab", buffering=0) as tick:
        statistics = evaluate(session, model.batches, model.measure, lambda examples: tick.write(b"."))
    measured = time.perf_counter()
    figures = finite({name: asdict(figure) for name, figure in summarise(model.measure, statistics).items()})
    return {
        "prune": point.recipe and point.recipe.prune,
        "step": point.recipe and point.recipe.step,
        **sizes,
        "figures": figures,
        "seconds": {"pack": coded - began, "load": loaded - coded, "evaluate": measured - loaded},
    }
