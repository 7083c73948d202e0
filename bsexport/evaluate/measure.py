"""What the outputs of a model are worth: figures over examples, each with its interval of 95% confidence."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CONFIDENCE = 1.96  # standard deviations of the normal distribution: 95%
RESAMPLES = 500
MASK = "attention_mask"
_SEED = 0


@dataclass(frozen=True)
class Batch:
    """Some examples that run together.

    feeds: inputs by name, padded. known: what the measure needs of the examples besides the outputs, such as labels: a
    list or an array with an entry for each. rows: int64 [examples], which of all examples they are.
    """

    feeds: dict[str, Array]
    known: dict[str, Any]
    rows: npt.NDArray[np.int64]

    @property
    def mask(self) -> npt.NDArray[np.bool_] | None:
        """Which places are no padding, bool [windows, tokens]; None of inputs that have no such mask."""
        mask = self.feeds.get(MASK)
        return None if mask is None else mask.astype(bool)

    def unpadded(self, values: Array) -> Iterator[Array]:
        """Of [windows, tokens, ...] what each window has, without padding."""
        mask = self.mask
        return iter(values) if mask is None else (value[kept] for value, kept in zip(values, mask, strict=True))


@dataclass(frozen=True)
class Figure:
    """A figure and the interval of 95% confidence that the choice of examples leaves."""

    value: float
    low: float
    high: float


class Measure(ABC):
    """A way to measure outputs.

    Each example is turned into a row of statistics, and a figure is a function of many rows, so that any figure can be
    had of a resample, too.

    primary: the figure that curves show: a share, the higher the better. shares: the figures that are the share of
    examples for which one statistic is 1, and that statistic's column. outputs: those that are needed,
    each of `rank` dimensions; empty: all, of any.
    dense: whether the dense model's outputs are what it is measured against.
    """

    name: ClassVar[str]
    primary: ClassVar[str]
    shares: ClassVar[dict[str, int]] = {}
    outputs: ClassVar[tuple[str, ...]] = ()
    rank: ClassVar[int]
    dense: ClassVar[bool] = False

    def wanted(self, there: Sequence[str]) -> list[str]:
        """Of the outputs that a graph has, those to compute."""
        return [name for name in there if name in self.outputs or not self.outputs]

    @abstractmethod
    def statistics(self, outputs: dict[str, Array], batch: Batch) -> Array:
        """Of a batch's outputs by name, float64 [examples, statistics]."""

    @abstractmethod
    def figures(self, statistics: Array) -> dict[str, float]:
        """Of float64 [examples, statistics], figures by name."""

    def reference(self, outputs: dict[str, Array], batch: Batch) -> dict[str, Array]:
        """What is kept of the dense model's outputs, for `statistics` to find in batch.known; where `dense` is set."""
        raise NotImplementedError


def summarise(measure: Measure, statistics: Array) -> dict[str, Figure]:
    """The figures with their intervals: Wilson's for shares, for others the percentiles of resamples (bootstrap)."""
    values = measure.figures(statistics)
    others = [name for name in values if name not in measure.shares]
    bounds = bootstrap(measure.figures, statistics, others) if others else {}
    for name in measure.shares:
        bounds[name] = wilson(values[name], len(statistics))
    return {name: Figure(value, *bounds[name]) for name, value in values.items()}


def wilson(share: float, count: int) -> tuple[float, float]:
    """The interval of a share of so many independent examples (Wilson 1927); (0, 1) of none."""
    if count == 0:
        return 0.0, 1.0
    spread = CONFIDENCE**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = CONFIDENCE * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(
    figures: Callable[[Array], dict[str, float]], statistics: Array, names: list[str]
) -> dict[str, tuple[float, float]]:
    """For each figure, the 2.5th and 97.5th percentile over resamples of the examples, the same each time."""
    random = np.random.default_rng(_SEED)
    found: list[list[float]] = []
    for _ in range(RESAMPLES):
        resample = figures(statistics[random.integers(0, len(statistics), len(statistics))])
        found.append([resample[name] for name in names])
    low, high = np.nanpercentile(found, [2.5, 97.5], axis=0)
    return {name: (float(low[index]), float(high[index])) for index, name in enumerate(names)}
