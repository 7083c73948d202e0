"""evaluate_package(): from a package and labelled data to figures."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bsexport.errors import DataError
from bsexport.evaluate.batches import make_batches
from bsexport.evaluate.examples import Asked, Examples, make_examples
from bsexport.evaluate.measure import Array, Measure, summarise
from bsexport.evaluate.run import answered, in_order
from bsexport.evaluate.subject import Subject
from bsexport.pipeline import Progress
from bsexport.processes import Processes
from bsexport.record import finite
from bsexport.tasks.data import read_data
from bsexport_runtime.package import Package
from bsexport_runtime.session import load


@dataclass(frozen=True)
class _Share:
    """What one process found. described: the data, and which columns. answers: see run.answered."""

    described: dict[str, Any]
    examples: int
    measure: Measure
    answers: list[tuple[Array, Array]]


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
    together. In a run of several processes (torchrun) each calls this, answers its share of the batches, and gets the
    figures of all.
    Raises PackageError, SourceError or DataError, the latter too if the data have no labels.
    """
    processes = Processes.launched()

    def share() -> _Share:
        session = load(path, mode=mode, threads=threads or processes.threads)
        with tempfile.TemporaryDirectory(prefix="bsexport-") as scratch:
            rows = read_data(data, split, Path(scratch))
            subject = Subject(Package(path), session)
            made = make_examples(subject, rows, asked)
            _check_labelled(path, data, asked.task or subject.task, made)
            done = 0

            def count(examples: int) -> None:
                nonlocal done
                done += examples
                progress("measuring", min(1.0, done * processes.count / made.count))

            batches = processes.share(make_batches(made.examples, subject, batch_size))
            answers = answered(session, batches, made.measure, count)
        described = {"name": rows.name, "split": rows.split, "sha256": rows.sha256, "columns": made.columns}
        return _Share(described, made.count, made.measure, answers)

    shares = processes.together(share)
    first = shares[0]
    statistics = in_order((batch for each in shares for batch in each.answers), first.measure)
    figures = finite({name: asdict(figure) for name, figure in summarise(first.measure, statistics).items()})
    return {"data": first.described, "examples": first.examples, "measure": first.measure.name, "figures": figures}


def _check_labelled(path: Path, data: str, task: str, made: Examples) -> None:
    """Raise DataError if there is nothing but the dense model to hold the answers against."""
    if not made.measure.dense:
        return
    if task == "feature-extraction":
        raise DataError(
            f"{path}: gives embeddings, which no labels can be held against; hold the model against itself with "
            "bsexport curve, or the package with bsexport verify --against"
        )
    raise DataError(
        f"{data}: has no labels, so there is nothing to hold the answers against; name their column with "
        "--label, or hold the model against itself with bsexport curve"
    )
