"""What fit() found, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

import bsexport_runtime
from bsexport.bench.points import Point
from bsexport_runtime.residency import MODES

CLASSES = ((0.1, "instant"), (1.0, "prompt"), (10.0, "slow"))
"""Latency up to so many seconds -> its class, for somebody who waits for the answer; longer ones are BATCH."""

BATCH = "batch work"
HEADS = ("predicted", "peak", "activations", "file pages", "load", "answer")


@dataclass(frozen=True)
class Fit:
    """One mode.

    why: the reason for which it does not fit, "" if it does.
    predicted: bytes of private memory for its weights and the session, without activations; None: it cannot be had.
    run: what worker.measure gave, under the limit if it fits, else without; None if it cannot be had.
    """

    mode: str
    why: str
    predicted: int | None
    run: dict[str, Any] | None

    @property
    def peak(self) -> int | None:
        """The most private memory beyond imports and inputs, in bytes."""
        return None if self.run is None else self.run["peak_bytes"]

    @property
    def latency(self) -> float | None:
        """Seconds of an answer at the slowest point, in the median."""
        return None if self.run is None else max(point["median_seconds"] for point in self.run["points"])

    def to_json(self) -> dict[str, Any]:
        """Everything, for --json."""
        return {
            "mode": self.mode,
            "fits": not self.why,
            "why": self.why or None,
            "predicted_bytes": self.predicted,
            "latency_class": None if self.latency is None else latency_class(self.latency),
            "measured": self.run,
        }


@dataclass(frozen=True)
class Report:
    """limit: bytes. threads: None is all cores. points: the sizes of inputs that were run. modes: in their order."""

    package: Path
    limit: int
    threads: int | None
    points: tuple[Point, ...]
    modes: tuple[Fit, ...]

    @property
    def best(self) -> Fit | None:
        """Of the modes that fit, the one that the runtime takes by itself under a limit: the first in its order."""
        fitting = {each.mode: each for each in self.modes if not each.why}
        return next((fitting[name] for name in MODES if name in fitting), None)

    @property
    def load_line(self) -> str | None:
        """The line of Python that loads the best mode."""
        if self.best is None:
            return None
        threads = "" if self.threads is None else f", threads={self.threads}"
        return f'bsexport_runtime.load("{self.package}", mode="{self.best.mode}"{threads})'

    def to_json(self) -> dict[str, Any]:
        """Everything, for --json."""
        return {
            "package": str(self.package),
            "limit_bytes": self.limit,
            "threads": self.threads,
            "onnxruntime": ort.__version__,
            "codec": bsexport_runtime.backend(),
            "points": [asdict(each) for each in self.points],
            "modes": [each.to_json() for each in self.modes],
            "load": self.load_line,
            "advice": list(self._advice()),
        }

    def to_text(self) -> str:
        """A table, how to load what fits, what else would fit, and what is counted."""
        threads = "all cores" if self.threads is None else f"threads: {self.threads}"
        inputs = "; ".join(map(str, self.points))
        lines = [
            f"{self.package}: {megabytes(self.limit)} of private memory above the imports; {inputs}; {threads}",
            f"{'mode':10}{'fits':6}" + "".join(f"{head:>12}" for head in HEADS),
            *map(_line, self.modes),
        ]
        lines += [f"{each.mode} does not fit: {each.why}" for each in self.modes if each.why]
        if self.best is not None:
            # The others compute the same; how fast they are stands in the table.
            cost = f"  # mode int8, {MODES['int8'].cost}" if self.best.mode == "int8" else ""
            lines.append(f"load it: {self.load_line}{cost}")
        return "\n".join([*lines, *self._advice(), *self._notes()])

    def _advice(self) -> Iterator[str]:
        """What would make a mode fit that does not."""
        measured = [each for each in self.modes if each.run is not None]
        if self.best is not None or not measured:
            return
        least = min(measured, key=lambda each: each.peak or 0)
        peak, activations = least.peak or 0, _activations(least.run)
        if peak <= self.limit:
            yield (
                f"advice: {least.mode} touches {megabytes(peak)}, but asks for more than the limit: fewer --threads, "
                "each of which asks for a stack of 8 MiB, or a little more --memory"
            )
            return
        yield f"advice: the least is {megabytes(peak)}, of mode {least.mode}"
        if peak - activations < self.limit:
            yield f"advice: {megabytes(activations)} of it are activations: a smaller --batch or --length takes less"
        elif least.mode == "float32":
            yield "advice: weights take most of it: mode coded keeps them coded"
        else:
            yield "advice: weights take most of it, even coded: pack with more --prune, a larger --step, fewer --keep"

    def _notes(self) -> Iterator[str]:
        """What the columns are, and what is not in them."""
        yield "fits: loaded and answered in a fresh process that the system gave so much and no more (RLIMIT_DATA)"
        if any(each.why and each.run for each in self.modes):
            yield "figures of a mode that does not fit were measured without the limit"
        yield "predicted: weights and session, without activations. peak: measured, of these activations above the load"
        yield "file pages: not in the peak, mapped weights among them; the system may drop them and read them again"
        if run := next((each.run for each in self.modes if each.run), None):
            private, files = megabytes(run["imports_bytes"]), megabytes(run["imports_file_bytes"])
            yield f"not counted: Python, numpy, onnxruntime and inputs, here {private} private, {files} file pages"


def latency_class(seconds: float) -> str:
    """The class of a latency, for somebody who waits."""
    return next((name for most, name in CLASSES if seconds <= most), BATCH)


def megabytes(size: int) -> str:
    """A size for people, in units of 10^6 bytes, as a limit of "64MB" is; in bytes if it is below 0.1 MB."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size:,} bytes"


def _activations(run: dict[str, Any] | None) -> int:
    """Bytes that came on top of the loaded model while it answered."""
    return 0 if run is None else max(0, run["peak_bytes"] - run["loaded_bytes"])


def _line(each: Fit) -> str:
    start = f"{each.mode:10}{'no' if each.why else 'yes':6}"
    if each.run is None or each.latency is None:
        return start + f"{'-':>12}" * len(HEADS)
    sizes = (each.predicted or 0, each.peak or 0, _activations(each.run), each.run["file_bytes"])
    times = (f"{each.run['load_seconds'] * 1e3:,.0f} ms", f"{each.latency * 1e3:,.1f} ms")
    cells = "".join(f"{cell:>12}" for cell in (*map(megabytes, sizes), *times))
    return f"{start}{cells}  {latency_class(each.latency)}"
