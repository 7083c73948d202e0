"""What mode int8 costs in the task's measure: the answers of a package in it, beside those in mode float32."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bsexport.errors import DataError, SourceError
from bsexport.evaluate.batches import Stored, make_batches
from bsexport.evaluate.examples import Asked, make_examples
from bsexport.evaluate.measure import Measure, summarise
from bsexport.evaluate.run import evaluate, refer
from bsexport.evaluate.subject import Subject
from bsexport.package import PackageWriter
from bsexport.pipeline import Progress
from bsexport.record import finite
from bsexport.source import Source
from bsexport.tasks.data import read_data
from bsexport.verify import dense_session
from bsexport_runtime.package import Package
from bsexport_runtime.session import load

MODES = ("float32", "int8")
BATCH = 16  # examples that run together
SPLIT = "test"


@dataclass(frozen=True)
class Check:
    """What a package is to be measured on in both modes. data: as the user named it. count: of its examples."""

    data: str
    batches: Stored
    measure: Measure
    count: int


def prepare(source: Source, data: str, folder: Path) -> Check:
    """The examples for a model that is yet to be packed, kept in `folder`.

    Raises SourceError or DataError if the data and the model do not fit, so that this is known before the model is
    packed: what makes examples looks at the graph and the files beside it, not at weights.
    """
    rows = read_data(data, SPLIT, folder / "cache")
    empty = folder / "empty"
    with PackageWriter(empty) as writer:
        with writer.blobs(0):
            for path in source.files:
                writer.add_file(path)
        writer.finish({}, {"task": source.task, "arena_bytes": 0, "tensors": []})
    subject = Subject(Package(empty), dense_session(source, values=False))
    batches = Stored(folder / "batches")
    try:
        made = make_examples(subject, rows, Asked())
        batches.write(make_batches(made.examples, subject, BATCH))
    except (SourceError, DataError) as error:
        raise type(error)(str(error).replace(str(empty), source.name)) from error
    return Check(data, batches, made.measure, made.count)


def compare(path: Path, check: Check, folder: Path, threads: int, progress: Progress) -> dict[str, Any]:
    """The figures of a package in both modes, and int8's less float32's, as plain values.

    Without labels, both are held against the outputs of mode float32. folder: for what those are.
    """
    measure, batches = check.measure, check.batches
    if measure.dense:
        batches = Stored(folder / "referred")
        batches.write(refer(load(path, threads=threads), check.batches, measure))
    found: dict[str, Any] = {}
    for mode in MODES:
        session = load(path, mode=mode, threads=threads)
        progress(f"measuring {mode}", 0)
        statistics = evaluate(session, batches, measure)
        found[mode] = finite({name: asdict(figure) for name, figure in summarise(measure, statistics).items()})
        del session  # before the next one takes its memory
    exact, rounded = ({name: figure["value"] for name, figure in found[mode].items()} for mode in MODES)
    lost = {n: rounded[n] - exact[n] for n in exact if exact[n] is not None and rounded[n] is not None}
    return {"data": check.data, "examples": check.count, "measure": measure.name, **found, "difference": lost}


def to_text(found: dict[str, Any]) -> str:
    """The figures of `compare` as a table."""
    lines = [
        f"{'':18}{'float32':>10}{'int8':>10}{'difference':>12}   {found['examples']:,} examples of {found['data']}"
    ]
    for name, difference in found["difference"].items():
        exact, rounded = (found[mode][name]["value"] for mode in MODES)
        lines.append(f"{name:18}{exact:10.4f}{rounded:10.4f}{difference:+12.4f}")
    return "\n".join(lines)
