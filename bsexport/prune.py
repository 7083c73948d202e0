"""Magnitude pruning, exact to one weight, in passes over tensors that are read one at a time.

A magnitude is compared as the 31 bits of its float32, which order as the magnitudes do. The global threshold is found
by two histograms, of the high 16 and of the low 15 bits, so that nothing but counts outlives a tensor.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport.errors import SourceError

LOW_BITS = 15
CHUNK = 1 << 18  # weights looked at together: the temporary arrays stay in the cache

Bits = npt.NDArray[np.uint32]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Threshold:
    """Everything below `bits` is pruned, and of the weights that equal it the first `ties`, in order of storage."""

    bits: int
    ties: int

    @property
    def magnitude(self) -> float:
        """The threshold as a number."""
        return float(np.uint32(self.bits).view(np.float32))


NOTHING = Threshold(0, 0)


def count_to_prune(weights: int, ratio: float) -> int:
    """How many of so many weights a ratio prunes: the nearest whole number."""
    return round(weights * ratio)


def threshold(tensors: Iterable[tuple[str, Callable[[], Array]]], ratio: float) -> Threshold:
    """The threshold that prunes the given ratio of all the weights of the named tensors together.

    Each tensor is read twice. Raises SourceError if one holds a NaN or an infinity.
    """
    tensors = list(tensors)
    high = np.zeros(1 << 16, np.int64)
    for name, read in tensors:
        for chunk in _chunks(read()):
            check_finite(name, chunk)
            bits = magnitude_bits(chunk)
            high += np.bincount(bits >> LOW_BITS, minlength=high.size)
    count = count_to_prune(int(high.sum()), ratio)
    if count == 0:
        return NOTHING
    prefix, below = _bin_of(high, count)
    low = np.zeros(1 << LOW_BITS, np.int64)
    for _, read in tensors:
        for chunk in _chunks(read()):
            bits = magnitude_bits(chunk)
            bits = bits[bits >> LOW_BITS == prefix]
            low += np.bincount(bits & (low.size - 1), minlength=low.size)
    suffix, below_low = _bin_of(low, count - below)
    return Threshold(prefix << LOW_BITS | suffix, count - below - below_low)


def prune(weights: Array, limit: Threshold) -> tuple[Array, int]:
    """The tensor with everything below the threshold set to zero, and how many of the ties it used up."""
    pruned = np.array(weights, order="C")
    ties = limit.ties
    for target in _chunks(pruned):
        bits = magnitude_bits(target)
        words = target.view(f"u{target.itemsize}")
        words *= bits >= limit.bits  # assigning through a mask without a pattern takes eight times as long
        if ties:
            equal = np.flatnonzero(bits == limit.bits)[:ties]
            target[equal] = 0
            ties -= equal.size
    return pruned, limit.ties - ties


def prune_rows(name: str, weights: Array, ratio: float) -> Array:
    """The tensor with the given ratio of each row (an index of dimension 0) set to zero, ties in order of storage."""
    rows = weights.reshape(weights.shape[0], -1)
    count = count_to_prune(rows.shape[1], ratio)
    if count == 0:
        return weights
    pruned = np.array(rows, order="C")
    together = max(1, CHUNK // rows.shape[1])
    for start in range(0, rows.shape[0], together):
        part = pruned[start : start + together]
        check_finite(name, part)
        bits = magnitude_bits(part)
        limit = np.partition(bits, count - 1, axis=1)[:, count - 1 : count]
        below = bits < limit
        equal = bits == limit
        ties = count - below.sum(axis=1, keepdims=True)
        part[below | (equal & (np.cumsum(equal, axis=1) <= ties))] = 0
    return pruned.reshape(weights.shape)


def magnitude_bits(weights: Array) -> Bits:
    """The magnitudes as uint32 that order as they do (NaN above infinity)."""
    with np.errstate(over="ignore"):  # float64 beyond float32: ranked as infinite
        return np.bitwise_and(weights.astype(np.float32, copy=False).view(np.uint32), np.uint32(0x7FFFFFFF))


def _chunks(weights: Array) -> Iterable[Array]:
    flat = weights.reshape(-1)
    return (flat[start : start + CHUNK] for start in range(0, flat.size, CHUNK))


def check_finite(name: str, weights: Array, *, infinities: bool = False) -> None:
    """Raise SourceError if a weight is NaN, or infinite unless infinities are allowed."""
    if weights.dtype.kind in "biu":
        return
    nans = int(np.count_nonzero(np.isnan(weights)))
    infinite = 0 if infinities else int(np.count_nonzero(np.isinf(weights)))
    if nans:
        raise SourceError(f"tensor {name}: holds NaN ({nans} of {weights.size} weights looked at); repair the model")
    if infinite:
        raise SourceError(
            f"tensor {name}: holds infinities ({infinite} of {weights.size} weights looked at); repair the model, or "
            f"leave the tensor as it is with --keep '{glob.escape(name)}'"
        )


def _bin_of(histogram: npt.NDArray[np.int64], rank: int) -> tuple[int, int]:
    """The bin that holds the rank-th smallest (from 1), and how many lie in the bins before it."""
    total = np.cumsum(histogram)
    index = int(np.searchsorted(total, rank))
    return index, int(total[index] - histogram[index])
