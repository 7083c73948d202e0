"""One measurement in a process of its own: load a model, let it answer, print what that took as JSON.

    python worker.py JOB

JOB is a Job as JSON. It imports what a device has, bsexport_runtime, numpy and onnxruntime, and nothing of bsexport, so
that the file can be taken to one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

MODES: dict[str, dict[str, Any]] = {name: {"mode": name} for name in ("float32", "int8", "coded")}
"""The forms in which the runtime keeps a package's weights in memory: mode -> keywords of bsexport_runtime.load."""

PLAIN = "fp32"
PLAIN_SAME = "fp32-same-options"
BASELINES = (PLAIN, PLAIN_SAME)
"""Plain onnxruntime on an .onnx file: with its default options; with those that the runtime gives its sessions."""

WARM_UP = 3  # runs of each point before those that count
FEWEST = 5  # runs of each point, however long they take
OWN = Path("/proc/self")


@dataclass(frozen=True)
class Job:
    """What one process measures.

    name: one of MODES or BASELINES. path: the package, or the .onnx file.
    threads: for decoding and of the session; None: all cores, and onnxruntime's choice.
    inputs: the inputs' names. points: an .npz file for each point to measure, its arrays in the order of the names.
    runs: how many of each point count; None: as many as fit into `seconds`, at least FEWEST.
    outputs: names of those to keep. keep: a folder for them, an N.npz for each point, in that order; None: nowhere.
    limit: private memory in bytes that the process may take beyond imports and inputs, held by the system; None: all.
    """

    name: str
    path: str
    threads: int | None
    inputs: list[str]
    points: list[str]
    runs: int | None = None
    seconds: float = 1.0
    outputs: list[str] = field(default_factory=list)
    keep: str | None = None
    limit: int | None = None


class Memory:
    """Private resident memory beyond that at its making, in bytes, from Linux's /proc.

    private, files: what was resident at its making, private memory and pages of files.
    The peak is the kernel's own mark of all that was resident, so nothing is missed between two looks, less the pages
    of files (libraries, the mapped package) that are resident when it is read. By as much as those have changed since
    the peak, it is off.
    """

    def __init__(self, own: Path = OWN) -> None:
        """Raises OSError or KeyError where the system does not tell."""
        self._own = own
        self.private = 0
        _, self.private = self.mark()
        self.files = status(own)["RssFile"]

    def mark(self) -> tuple[int, int]:
        """The peak since the last mark, and what is resident now."""
        found = status(self._own)
        now = found["RssAnon"]
        peak = max(now, found["VmHWM"] - found["RssFile"] - found["RssShmem"])
        (self._own / "clear_refs").write_text("5")  # the kernel's mark begins anew
        return peak - self.private, now - self.private

    def more_files(self) -> int:
        """Pages of files that came in since; the system may drop them again."""
        return status(self._own)["RssFile"] - self.files


def status(own: Path = OWN) -> dict[str, int]:
    """The sizes that Linux tells of a process, in bytes, by the names of proc_pid_status(5)."""
    lines = (own / "status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {key: int(value.split()[0]) * 1024 for key, value in pairs}


def limit_private(more: int) -> None:
    """Let this process take so many more bytes of private memory than it has, and no byte beyond.

    The system counts what is asked for, touched or not. Raises OSError, or ImportError, where it has no such limit.
    """
    import resource

    most = status()["VmData"] + more
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def measure(job: Job) -> dict[str, Any]:
    """Load, answer once, then answer each point again and again.

    Seconds are of the wall clock, load_cpu_seconds those of all threads. import_seconds: of the runtime, after numpy
    and onnxruntime. first_answer_seconds: from the beginning of the load to the end of the first run, on the first
    point. Bytes are private resident memory beyond imports and inputs, None where the system does not tell: the peak
    of the load and what is resident after it, the peak of everything and what is resident after the last run; pages of
    files that came in, such as those of mapped weights; and what imports and inputs had taken before.
    """
    import onnxruntime  # noqa: F401

    start = time.perf_counter()
    load = loader(job)
    import_seconds = time.perf_counter() - start
    points = [read_inputs(job, path) for path in job.points]
    memory = _memory()
    if job.limit is not None:
        limit_private(job.limit)
    start, processor = time.perf_counter(), time.process_time()
    session = load()
    load_seconds, load_cpu_seconds = time.perf_counter() - start, time.process_time() - processor
    load_peak, loaded = memory.mark() if memory else (None, None)
    start = time.perf_counter()
    session.run(None, points[0])
    first_answer_seconds = load_seconds + time.perf_counter() - start
    latencies = [_latency(partial(session.run, None, point), job) for point in points]
    peak, steady = memory.mark() if memory else (None, None)
    files = memory.more_files() if memory else None
    if job.keep is not None:
        for index, point in enumerate(points):
            np.savez(Path(job.keep) / f"{index}.npz", *session.run(job.outputs, point))
    return {
        "name": job.name,
        "process": os.getpid(),
        "import_seconds": import_seconds,
        "load_seconds": load_seconds,
        "load_cpu_seconds": load_cpu_seconds,
        "first_answer_seconds": first_answer_seconds,
        "points": latencies,
        "load_peak_bytes": load_peak,
        "loaded_bytes": loaded,
        "peak_bytes": None if load_peak is None or peak is None else max(load_peak, peak),
        "steady_bytes": steady,
        "file_bytes": files,
        "imports_bytes": memory.private if memory else None,
        "imports_file_bytes": memory.files if memory else None,
    }


def loader(job: Job) -> Callable[[], Any]:
    """What loads the job's model; whatever that imports is imported here."""
    import onnxruntime as ort

    if job.name in MODES:
        import bsexport_runtime

        bsexport_runtime.backend()  # finds the library
        return partial(bsexport_runtime.load, job.path, threads=job.threads, **MODES[job.name])
    if job.name == PLAIN_SAME:
        from bsexport_runtime.session import own_options

        options = own_options(job.threads)
    else:
        options = ort.SessionOptions()
        options.intra_op_num_threads = job.threads or 0
    return partial(ort.InferenceSession, job.path, options, providers=["CPUExecutionProvider"])


def _memory() -> Memory | None:
    try:
        return Memory()
    except (OSError, KeyError):
        return None


def read_inputs(job: Job, path: str) -> dict[str, Any]:
    """The inputs of one of the job's points."""
    with np.load(path) as arrays:
        return dict(zip(job.inputs, arrays.values(), strict=True))


def _latency(run: Callable[[], Any], job: Job) -> dict[str, float]:
    """The median and the 95th percentile of the runs that count."""
    for _ in range(WARM_UP):
        run()
    taken: list[float] = []
    while len(taken) < job.runs if job.runs else len(taken) < FEWEST or sum(taken) < job.seconds:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    median, p95 = np.quantile(taken, (0.5, 0.95))
    return {"median_seconds": float(median), "p95_seconds": float(p95), "runs": len(taken)}


def main() -> None:
    """Exits with 1 and one line on stderr if the model cannot be loaded or run."""
    job = Job(**json.loads(sys.argv[1]))
    try:
        print(json.dumps(measure(job)))
    except Exception as error:  # whatever onnxruntime, numpy and the runtime raise
        sys.exit(" ".join(str(error).split()) or type(error).__name__)


if __name__ == "__main__":
    main()
