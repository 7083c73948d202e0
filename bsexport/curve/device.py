"""What the points of a curve take on a device: load time, memory and latency, one after the other, each in a fresh
process."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bsexport.bench.process import in_process
from bsexport.bench.worker import Job
from bsexport.curve.point import Point, packed
from bsexport.curve.subject import Prepared
from bsexport.curve.sweep import Points
from bsexport.pipeline import Progress

MODE = "float32"
SECONDS = 0.5  # of runs, for the latency
_KEPT = ("load_seconds", "first_answer_seconds", "peak_bytes", "steady_bytes")


def measure_on_device(
    models: Sequence[Prepared],
    found: dict[Point, dict[str, Any]],
    working: Points,
    threads: int,
    progress: Progress,
) -> None:
    """Add "bench" to the figures of each point that lacks it: seconds and bytes as in bench.worker, and the latency of
    the model's first example by itself, its median and its 95th percentile."""
    for index, (point, figures) in enumerate(found.items()):
        progress("benchmarking", index / len(found))
        if figures.get("bench", {}).get("threads") == threads:
            continue
        with packed(models[point.model], point, threads) as (package, _):
            figures["bench"] = _measure(models[point.model], package, threads)
        working.keep(point, figures)


def _measure(model: Prepared, package: Path, threads: int) -> dict[str, float | None]:
    batch = next(batch for batch in model.batches if 0 in batch.rows)
    place = batch.known["owner"].index(int(np.flatnonzero(batch.rows == 0)[0]))
    inputs = {}
    for name in model.inputs:
        value = batch.feeds[name]
        alike = batch.mask is not None and value.shape == batch.mask.shape
        inputs[name] = next(itertools.islice(batch.unpadded(value), place, None))[None] if alike else value[[place]]
    with tempfile.TemporaryDirectory(prefix="bsexport-") as scratch:
        file = Path(scratch) / "example.npz"
        np.savez(file, *inputs.values())
        job = Job(MODE, str(package), threads, list(inputs), [str(file)], seconds=SECONDS)
        measured = in_process(job)
    (latency,) = measured["points"]
    times = {name: latency[name] for name in ("median_seconds", "p95_seconds")}
    return {"threads": threads, **{name: measured[name] for name in _KEPT}, **times}
