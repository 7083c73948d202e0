"""The figures of a bench: medians over the rounds, and ratios within each round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime as ort

import bsexport_runtime
from bsexport.bench.points import Point
from bsexport.bench.worker import BASELINES, PLAIN, PLAIN_SAME

LABEL = 34  # columns of the first column
SHORT = {PLAIN: "fp32", PLAIN_SAME: "fp32*"}
SHOWN = {"s": (1e3, "ms"), "bytes": (2.0**-20, "MiB")}
"""Unit -> factor and unit for people."""


@dataclass(frozen=True)
class Deviation:
    """The largest |output - that of fp32| of one mode or baseline, and where it is.

    scale: the largest value of that output of fp32.
    """

    name: str
    output: str
    point: Point
    deviation: float
    scale: float


@dataclass(frozen=True)
class Figure:
    """One figure of every mode and baseline.

    point: the size of the inputs, None where it does not matter. rounds: name -> its value in each round.
    """

    what: str
    unit: str
    point: Point | None
    rounds: dict[str, list[float]]

    def value(self, name: str) -> float:
        """The median over the rounds."""
        return median(self.rounds[name])

    def ratio(self, name: str, baseline: str) -> float | None:
        """The median over the rounds of the ratio within a round; None if the baseline's is not above 0."""
        pairs = list(zip(self.rounds[name], self.rounds[baseline], strict=True))
        return median(ours / plain for ours, plain in pairs) if all(plain > 0 for _, plain in pairs) else None

    def to_json(self, modes: Sequence[str]) -> dict[str, Any]:
        """What it is, its medians, and each mode's ratio to each baseline."""
        return {
            "what": self.what,
            "unit": self.unit,
            "point": self.point and asdict(self.point),
            "medians": {name: self.value(name) for name in self.rounds},
            "ratios": {mode: {base: self.ratio(mode, base) for base in BASELINES} for mode in modes},
        }


@dataclass(frozen=True)
class Report:
    """A package's modes beside the baselines.

    against: the model that the baselines run; None: the package's own decoded weights. threads: None is all cores.
    runs: what worker.measure gave, in the order in which it was measured, with `round` and `began_seconds`.
    disk: name -> bytes of the files that it needs.
    """

    package: Path
    against: str | None
    threads: int | None
    modes: tuple[str, ...]
    points: tuple[Point, ...]
    runs: tuple[dict[str, Any], ...]
    disk: dict[str, int]
    deviations: tuple[Deviation, ...]

    @property
    def rounds(self) -> int:
        """How often each was measured."""
        return len({run["round"] for run in self.runs})

    @property
    def memory_measured(self) -> bool:
        """Whether this system tells a process's private memory and its peak."""
        return all(run["peak_bytes"] is not None for run in self.runs)

    def figures(self) -> Iterator[Figure]:
        """Every figure, in the order of the table."""
        yield self._figure("load", "s", lambda run: run["load_seconds"])
        yield self._figure("to the first answer", "s", lambda run: run["first_answer_seconds"])
        for index, point in enumerate(self.points):
            yield from self._of_point(index, point)
        if self.memory_measured:
            yield self._figure("memory, peak of the load", "bytes", lambda run: run["load_peak_bytes"])
            yield self._figure("memory, peak", "bytes", lambda run: run["peak_bytes"])
            yield self._figure("memory, steady", "bytes", lambda run: run["steady_bytes"])
        yield self._figure("on disk", "bytes", lambda run: self.disk[run["name"]])

    def to_json(self) -> dict[str, Any]:
        """Everything, for --json."""
        return {
            "package": str(self.package),
            "against": self.against,
            "threads": self.threads,
            "codec": bsexport_runtime.backend(),
            "onnxruntime": ort.__version__,
            "baselines": self._baselines(),
            "modes": list(self.modes),
            "rounds": self.rounds,
            "points": [asdict(each) for each in self.points],
            "figures": [figure.to_json(self.modes) for figure in self.figures()],
            "memory_measured": self.memory_measured,
            "deviations": [asdict(each) for each in self.deviations],
            "runs": list(self.runs),
        }

    def to_text(self) -> str:
        """A table for people: absolute figures, then ratios, then what the columns are."""
        names = [*BASELINES, *self.modes]
        ratios = [(mode, base) for mode in self.modes for base in BASELINES]
        heads = [*(SHORT.get(name, name) for name in names), *(f"{mode}/{SHORT[base]}" for mode, base in ratios)]
        widths = [max(11, len(head) + 2) for head in heads]
        rounds = f"{self.rounds} round{'s' * (self.rounds > 1)}"
        threads = "all cores" if self.threads is None else f"threads: {self.threads}"
        lines = [
            f"{self.package}: medians of {rounds}, {threads}, codec {bsexport_runtime.backend()}",
            _line("", heads, widths),
        ]
        point = None
        for figure in self.figures():
            if figure.point != point:
                point = figure.point
                lines += [str(point)] if point else []
            lines.append(_line(*_cells(figure, names, ratios), widths))
        return "\n".join([*lines, *self._notes()])

    def _figure(
        self, what: str, unit: str, read: Callable[[dict[str, Any]], float], point: Point | None = None
    ) -> Figure:
        names = [*BASELINES, *self.modes]
        rounds = {name: [read(run) for run in self.runs if run["name"] == name] for name in names}
        return Figure(what, unit, point, rounds)

    def _of_point(self, index: int, point: Point) -> Iterator[Figure]:
        def median_of(run: dict[str, Any]) -> float:
            seconds: float = run["points"][index]["median_seconds"]
            return seconds

        yield self._figure("latency, median", "s", median_of, point)
        yield self._figure("latency, p95", "s", lambda run: run["points"][index]["p95_seconds"], point)
        yield self._figure("throughput", "items/s", lambda run: point.batch / median_of(run), point)
        if (tokens := point.tokens) is not None:
            yield self._figure("throughput", "tokens/s", lambda run: tokens / median_of(run), point)

    def _baselines(self) -> dict[str, str]:
        weights = "the package's decoded weights" if self.against is None else self.against
        return {
            PLAIN: f"onnxruntime with its default options on {weights} as a plain fp32 .onnx file",
            PLAIN_SAME: "the same file with the options that the runtime gives its sessions, such as no prepacking",
        }

    def _notes(self) -> Iterator[str]:
        """What the columns mean, how far the outputs are apart, and what is missing."""
        for name, what in self._baselines().items():
            yield f"{SHORT[name]:6} {what}"
        yield "a/b    the median over the rounds of the ratio within a round"
        for each in self.deviations:
            yield (
                f"outputs of {SHORT.get(each.name, each.name)} deviate by at most {each.deviation:.3g} from fp32's, "
                f"where the largest is {each.scale:.3g} ({each.output}, {each.point})"
            )
        if not self.memory_measured:
            yield "memory was not measured: this system does not tell a process's private memory"


def _cells(figure: Figure, names: Sequence[str], ratios: Sequence[tuple[str, str]]) -> tuple[str, list[str]]:
    """The label and the numbers of a line."""
    factor, unit = SHOWN.get(figure.unit, (1.0, figure.unit))
    found = [figure.ratio(mode, base) for mode, base in ratios]
    indent = "  " if figure.point else ""
    return f"{indent}{figure.what}, {unit}", [
        *(f"{factor * figure.value(name):,.2f}" for name in names),
        *("-" if ratio is None else f"{ratio:.{2 if ratio >= 0.1 else 3}f}x" for ratio in found),
    ]


def _line(label: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"{label:{LABEL}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
