"""bench(): a package beside plain onnxruntime on the fp32 file. Read this first."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bsexport.bench.points import Inputs, Point, keep_inputs, points, silent_session
from bsexport.bench.process import in_process
from bsexport.bench.report import Deviation, Report
from bsexport.bench.worker import BASELINES, PLAIN, Job
from bsexport.errors import BenchError, SourceError
from bsexport.graph.standard import write_standard
from bsexport.output import disk_errors
from bsexport.pipeline import Progress
from bsexport.source import Source
from bsexport.unpack import unpack
from bsexport.verify import deviation
from bsexport_runtime.package import GRAPH_FILES, MANIFEST, PLAIN_GRAPH, WEIGHTS, Package
from bsexport_runtime.residency import choose


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often.

    modes: of worker.MODES. batches, lengths: of the inputs; None: see points. threads: of everything; None: all cores.
    rounds: how often each mode gets a fresh process. runs: of each point in a process; None: as many as take `seconds`.
    """

    modes: tuple[str, ...] = ("float32",)
    batches: tuple[int, ...] | None = None
    lengths: tuple[int, ...] | None = None
    threads: int | None = None
    rounds: int = 5
    runs: int | None = None
    seconds: float = 1.0


def bench(
    path: Path,
    settings: Settings,
    open_model: Callable[[str | None], Source] | None = None,
    progress: Progress = lambda stage, share: None,
) -> Report:
    """Measure the package's modes and the baselines in turn, each time in a fresh process.

    open_model: opens, for a task, the model whose fp32 graph is the baseline; without it the baseline has the package's
    own decoded weights.
    Raises PackageError if the package is damaged, SourceError if the model takes other inputs or gives other outputs,
    BenchError if something cannot be measured, VerifyError if outputs cannot be compared, OutputError on a full disk.
    """
    package = Package(path)
    for mode in settings.modes:
        choose(package, mode, None)
    graph = onnx.load_model_from_string(package.read_bytes(PLAIN_GRAPH)).graph
    progress("reading", 0)
    source = None if open_model is None else open_model(package.manifest.get("task"))
    if source is not None:
        _check_same_interface(package, graph, source)
    outputs = _numbers(graph)
    if not outputs:
        raise BenchError(f"{path}: the graph gives no numbers, so there is nothing to compare")
    made = points(silent_session(path, settings.threads), graph, settings.batches, settings.lengths)
    with tempfile.TemporaryDirectory(prefix="bsexport-bench-") as temporary:
        folder = Path(temporary)
        baseline = folder / "fp32.onnx"
        with disk_errors(folder):
            _write_baseline(path, source, baseline)
            job = _job(made, outputs, settings, folder)
        paths = {**dict.fromkeys(BASELINES, baseline), **dict.fromkeys(settings.modes, path)}
        jobs = [job(name, str(where)) for name, where in paths.items()]
        runs, deviations = _take_turns(jobs, list(made), settings.rounds, folder, progress)
        baseline_bytes = sum(file.stat().st_size for file in folder.glob(f"*{baseline.name}*"))
    return Report(
        package=path,
        against=None if source is None else source.name,
        threads=settings.threads,
        modes=settings.modes,
        points=tuple(made),
        runs=tuple(runs),
        disk={**dict.fromkeys(BASELINES, baseline_bytes), **dict.fromkeys(settings.modes, package_bytes(path))},
        deviations=tuple(deviations),
    )


def _take_turns(
    jobs: Sequence[Job], made: Sequence[Point], rounds: int, folder: Path, progress: Progress
) -> tuple[list[dict[str, Any]], list[Deviation]]:
    """Every job once in a round, in their order: each result with its round, and when it began in seconds.

    The outputs of the first round are compared when it is over, so that no time goes into wrong answers.
    """
    begin = time.perf_counter()
    runs = []
    deviations = []
    for number in range(rounds):
        for index, job in enumerate(jobs):
            progress(f"round {number + 1} of {rounds}", (number * len(jobs) + index) / (rounds * len(jobs)))
            if number == 0:
                (folder / job.name).mkdir()
                job = replace(job, keep=str(folder / job.name))
            began = time.perf_counter() - begin
            runs.append({"round": number, "began_seconds": began, **in_process(job)})
        if number == 0:
            deviations = [_largest_deviation(job, made, folder) for job in jobs if job.name != PLAIN]
    return runs, deviations


def package_bytes(path: Path) -> int:
    """Bytes on disk of a package: manifest, graphs and weights. Tokenizer and configuration are the model's own."""
    files = [path / name for name in (MANIFEST, *GRAPH_FILES, WEIGHTS)]
    return sum(file.stat().st_size for file in files if file.exists())


def _write_baseline(path: Path, source: Source | None, out: Path) -> None:
    if source is None:
        unpack(path, out)
        return
    weights = {weight.name: weight for weight in source.weights}
    for prefix, graph in source.graphs.items():
        write_standard(graph, out.with_name(prefix + out.name), lambda name: weights[name].read())


def _job(made: dict[Point, Inputs], outputs: list[str], settings: Settings, folder: Path) -> partial[Job]:
    """What all jobs have alike; the inputs go to files of `folder`."""
    names, files = keep_inputs(made, folder)
    return partial(
        Job,
        threads=settings.threads,
        inputs=names,
        points=files,
        runs=settings.runs,
        seconds=settings.seconds,
        outputs=outputs,
    )


def _check_same_interface(package: Package, graph: onnx.GraphProto, source: Source) -> None:
    """Raise SourceError unless the model takes the package's inputs and gives its outputs."""
    for what, ours, theirs in (
        ("inputs", _inputs(graph), _inputs(source.graph.graph)),
        ("outputs", graph.output, source.graph.graph.output),
    ):
        packed, model = list(map(_described, ours)), list(map(_described, theirs))
        if packed != model:
            raise SourceError(
                f"{source.name}: is not the model of {package.path}: its {what} are {', '.join(model)}, "
                f"the package's {', '.join(packed)}; give the model that was packed"
            )


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _described(value: onnx.ValueInfoProto) -> str:
    """Such as "input_ids (int64 of rank 2)"."""
    tensor = value.type.tensor_type
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{value.name} ({dtype} of rank {len(tensor.shape.dim)})"


def _numbers(graph: onnx.GraphProto) -> list[str]:
    """The outputs that can be compared: tensors of numbers."""
    no_numbers = (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
    return [value.name for value in graph.output if value.type.tensor_type.elem_type not in no_numbers]


def _largest_deviation(job: Job, made: Sequence[Point], folder: Path) -> Deviation:
    """How far the outputs of the first round are from those of PLAIN. Raises BenchError if one is not finite."""
    found = []
    for index, point in enumerate(made):
        with np.load(folder / job.name / f"{index}.npz") as got, np.load(folder / PLAIN / f"{index}.npz") as expected:
            for output, key in zip(job.outputs, got, strict=True):
                one = deviation(output, got[key], expected[key])
                if one.deviation is None:
                    raise BenchError(f"{job.name}: output {output} is not finite at {point}, that of {PLAIN} is")
                found.append(Deviation(job.name, output, point, one.deviation, one.scale))
    return max(found, key=lambda each: each.deviation)
