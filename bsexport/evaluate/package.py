"""evaluate_package(): from a package and labelled data to figures."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bsexport.errors import DataError
from bsexport.evaluate.batches import make_batches
from bsexport.evaluate.examples import Asked, make_examples
from bsexport.evaluate.measure import summarise
from bsexport.evaluate.run import evaluate
from bsexport.evaluate.subject import Subject
from bsexport.pipeline import Progress
from bsexport.record import finite
from bsexport.tasks.data import read_data
from bsexport_runtime.package import Package
from bsexport_runtime.session import load


def evaluate_package(
    path: Path,
    data: str,
    split: str,
    asked: Asked,
    *,
    mode: str = "float32",
    batch_size: int,
    threads: int | None,
    progress: Progress = lambda stage, share: None,
) -> dict[str, Any]:
    """The figures of a package on labelled data, as plain values.

    data, split: as tasks.data.read_data takes them. mode: of bsexport_runtime.load. batch_size: examples that run
    together.
    Raises PackageError, SourceError or DataError, the latter too if the data have no labels.
    """
    session = load(path, mode=mode, threads=threads)
    with tempfile.TemporaryDirectory(prefix="bsexport-") as scratch:
        rows = read_data(data, split, Path(scratch))
        subject = Subject(Package(path), session)
        made = make_examples(subject, rows, asked)
        if made.measure.dense and (asked.task or subject.task) == "feature-extraction":
            raise DataError(
                f"{path}: gives embeddings, which no labels can be held against; hold the model against itself with "
                "bsexport curve, or the package with bsexport verify --against"
            )
        if made.measure.dense:
            raise DataError(
                f"{data}: has no labels, so there is nothing to hold the answers against; name their column with "
                "--label, or hold the model against itself with bsexport curve"
            )
        done = 0

        def count(examples: int) -> None:
            nonlocal done
            done += examples
            progress("measuring", done / made.count)

        batches = make_batches(made.examples, subject, batch_size)
        statistics = evaluate(session, batches, made.measure, count)
    figures = finite({name: asdict(figure) for name, figure in summarise(made.measure, statistics).items()})
    described = {"name": rows.name, "split": rows.split, "sha256": rows.sha256, "columns": made.columns}
    return {"data": described, "examples": made.count, "measure": made.measure.name, "figures": figures}
