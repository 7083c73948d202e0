"""fit(): which modes of a package load and answer within a limit of memory. Read this first."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from bsexport.bench.points import keep_inputs, points, silent_session
from bsexport.bench.process import in_process
from bsexport.bench.worker import OWN, Job, Memory
from bsexport.errors import BenchError
from bsexport.fit.report import Fit, Report
from bsexport.output import disk_errors
from bsexport.pipeline import Progress
from bsexport_runtime.errors import BsexportRuntimeError, PackageError
from bsexport_runtime.package import PLAIN_GRAPH, Package
from bsexport_runtime.residency import MODES, choose, predict

SECONDS = 0.5  # how long each point is answered again and again


def fit(
    path: Path,
    limit: int,
    modes: Sequence[str] = tuple(MODES),
    *,
    batches: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
    threads: int | None = None,
    progress: Progress = lambda stage, share: None,
) -> Report:
    """Load and run a package in each mode, in a fresh process that the system gives `limit` bytes and no more.

    limit: of private memory beyond the imports and the inputs, in bytes. modes: of residency.MODES.
    batches, lengths: of the inputs; None: see points. threads: for loading and of the session; None: all cores.
    A mode that does not fit is run again without the limit, which tells what it would take, and that it was the limit.

    Raises PackageError if the package is damaged, BenchError if it does not take the inputs, or if this system has no
    such limit or does not tell a process's memory.
    """
    _check_system()
    package = Package(path)
    for wrong in package.verify():  # a coded block is else found out when it is used, which may be never
        raise PackageError(wrong)
    graph = onnx.load_model_from_string(package.read_bytes(PLAIN_GRAPH)).graph
    progress("reading", 0)
    # Coded if that can be had: what this process does should not need the memory that is in doubt.
    smallest = "coded" if MODES["coded"].missing() is None else "float32"
    made = points(silent_session(path, threads, smallest), graph, batches, lengths)
    with tempfile.TemporaryDirectory(prefix="bsexport-fit-") as temporary:
        with disk_errors(Path(temporary)):
            names, files = keep_inputs(made, Path(temporary))
        found = []
        for done, mode in enumerate(modes):
            progress(mode, done / len(modes))
            job = Job(mode, str(path), threads, names, files, seconds=SECONDS)
            found.append(_try(package, job, limit))
    return Report(path, limit, threads, tuple(made), tuple(found))


def _try(package: Package, job: Job, limit: int) -> Fit:
    """One mode under the limit; without it, if it does not fit."""
    try:
        choose(package, job.name, None)
    except BsexportRuntimeError as error:
        return Fit(job.name, str(error).removeprefix(f"{package.path}: "), None, None)
    predicted = predict(package, job.name)
    try:
        run = in_process(replace(job, limit=limit))
    except BenchError as error:
        return _without_limit(job, predicted, _reason(error, job))
    # What the imports had reserved and not touched is not counted by the system's limit, should it be touched now.
    over = f"its peak is {run['peak_bytes'] - limit:,} bytes above the limit" if run["peak_bytes"] > limit else ""
    return Fit(job.name, over, predicted, run)


def _without_limit(job: Job, predicted: int, why: str) -> Fit:
    """What a mode would take that does not fit."""
    try:
        return Fit(job.name, why, predicted, in_process(job))
    except BenchError as error:
        return Fit(job.name, f"it does not run without a limit either: {_reason(error, job)}", predicted, None)


def _reason(error: BenchError, job: Job) -> str:
    return str(error).removeprefix(f"{job.name}: ").removeprefix("cannot be measured: ")


def _check_system() -> None:
    """Raise BenchError unless this system limits and tells the private memory of a process."""
    try:
        import resource

        Memory()
    except (ImportError, OSError, KeyError):
        told = f"{sys.platform} cannot hold a process to a limit of private memory (RLIMIT_DATA), or does not tell it "
        raise BenchError(f"{told}({OWN}): run bsexport fit on Linux") from None
    del resource
