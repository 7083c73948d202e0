"""One point of a curve: prune, quantise and code the model, load the package as a device does, and measure it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bsexport.curve.subject import Prepared
from bsexport.evaluate.measure import summarise
from bsexport.evaluate.run import evaluate
from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport_runtime.session import load

_KEPT = ("weights_bytes", "of_fp32", "bits_per_weight", "entropy_bits", "eg0_bits", "eg_bits", "sparsity")


@dataclass(frozen=True)
class Point:
    """A point to measure. recipe: None for the dense model. key: names it among those of all models."""

    model: int
    recipe: Recipe | None

    @property
    def key(self) -> str:
        return f"{self.model}-dense" if self.recipe is None else f"{self.model}-{self.recipe.prune}-{self.recipe.step}"


def measure_point(model: Prepared, point: Point, threads: int, ticks: Path) -> dict[str, Any]:
    """The figures of a point, as plain values.

    ticks: a file that gets a byte for each batch that is done, for whoever shows the progress.
    """
    began = time.perf_counter()
    sizes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bsexport-") as scratch, ticks.open("ab", buffering=0) as tick:
        package = model.dense
        if point.recipe is not None:
            package = Path(scratch) / "package"
            summary = pack(model.source, point.recipe, package, threads=threads).summary()
            sizes = {name: summary[name] for name in _KEPT}
        packed = time.perf_counter()
        session = load(package, threads=threads)
        loaded = time.perf_counter()
        statistics = evaluate(session, model.batches, model.measure, lambda examples: tick.write(b"."))
    measured = time.perf_counter()
    figures = {name: asdict(figure) for name, figure in summarise(model.measure, statistics).items()}
    recipe = point.recipe
    return {
        "prune": None if recipe is None else recipe.prune,
        "step": None if recipe is None else recipe.step,
        **sizes,
        "figures": figures,
        "seconds": {"pack": packed - began, "load": loaded - packed, "evaluate": measured - loaded},
    }
