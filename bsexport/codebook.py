"""Algorithm 2 of the paper, first half: count the levels and rank them by frequency."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bsexport_runtime import codec

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Histogram:
    """How often each level occurs.

    levels: the distinct levels, rising, int32 [n]. counts: how often each occurs, all above 0, int64 [n].
    """

    levels: npt.NDArray[np.int32]
    counts: Int64s

    @property
    def total(self) -> int:
        """The number of weights."""
        return int(self.counts.sum())

    @property
    def zeros(self) -> int:
        """The number of weights at level 0."""
        return int(self.counts[self.levels == 0].sum())

    def entropy(self) -> float:
        """Zeroth-order entropy of all the weights together, in bits."""
        counts = self.counts.astype(np.float64)
        total = counts.sum()
        return float(total * np.log2(total) - counts @ np.log2(counts))


EMPTY = Histogram(np.zeros(0, np.int32), np.zeros(0, np.int64))

DENSE_SPAN = 1 << 22  # up to this span of levels, counting in a table beats sorting


def count(levels: npt.NDArray[np.int32]) -> Histogram:
    """The histogram of an array of levels, at least one."""
    low, high = int(levels.min()), int(levels.max())
    if high - low > DENSE_SPAN:
        values, counts = np.unique(levels, return_counts=True)
        return Histogram(values, counts.astype(np.int64))
    table = codec.default().count(levels, least=low, bins=high - low + 1)
    present = np.flatnonzero(table)
    return Histogram((present + low).astype(np.int32), table[present])


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """The histogram of several arrays together, at least one."""
    parts = list(histograms)
    levels, index = np.unique(np.concatenate([part.levels for part in parts]), return_inverse=True)
    counts = np.zeros(levels.size, np.int64)
    np.add.at(counts, index, np.concatenate([part.counts for part in parts]))
    return Histogram(levels, counts)


def rank(histogram: Histogram) -> Histogram:
    """The same histogram in the order of the symbols: symbol 0 is the most frequent level.

    Levels of equal frequency go by rising magnitude, then positive first, so that the order is a function of the data.
    """
    levels = histogram.levels.astype(np.int64)
    order = np.lexsort((levels < 0, np.abs(levels), -histogram.counts))
    return Histogram(histogram.levels[order], histogram.counts[order])
