"""Magnitude pruning, exact to one weight, in passes over parts of tensors that are read one at a time.

A magnitude is compared as the 31 bits of its float32, which order as the magnitudes do. The global threshold is found
by two histograms, of the high 16 and of the low 15 bits, so that nothing but counts outlives a part. One is enough for
weights that are no finer than float16 or bfloat16.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport.errors import SourceError
from bsexport.slabs import Each
from bsexport_runtime import codec

MAGNITUDE = 0x7FFFFFFF  # the bits of a float32 but for its sign
HIGH_BITS, LOW_BITS = 16, 15
HALF_BITS = 2  # of the low ones, that float16 has
INFINITE = 0x7F800000  # from here on infinities, and NaN
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


def threshold(parts: Iterable[tuple[str, Callable[[], Array]]], ratio: float, each: Each = map) -> Threshold:
    """The threshold that prunes the given ratio of all the weights of the parts together.

    parts: the name of the tensor, for messages, and what reads some of its weights. Each part is read once, and again
    unless its low bits are all 0, as those of bfloat16 and of float16 are. each: applies a function to many parts.
    Raises SourceError if one holds a NaN or an infinity.
    """
    parts = list(parts)
    high = np.zeros(1 << HIGH_BITS, np.int64)
    half = np.zeros(1 << HIGH_BITS + HALF_BITS, np.int64)  # of parts that need no second look
    fine = []
    for part, (counts, exact) in zip(parts, each(_count_high, parts), strict=True):
        if exact:
            half[:: half.size // counts.size] += counts
        else:
            high += counts
            fine.append(part[1])
    halves = half.reshape(high.size, -1)
    high += halves.sum(axis=1)
    count = count_to_prune(int(high.sum()), ratio)
    if count == 0:
        return NOTHING
    prefix, below = _bin_of(high, count)
    low = np.zeros(1 << LOW_BITS, np.int64)
    low[:: 1 << LOW_BITS - HALF_BITS] = halves[prefix]
    for counts in each(partial(_count_low, prefix=prefix), fine):
        low += counts
    suffix, below_low = _bin_of(low, count - below)
    return Threshold(prefix << LOW_BITS | suffix, count - below - below_low)


def _count_high(part: tuple[str, Callable[[], Array]]) -> tuple[npt.NDArray[np.int64], bool]:
    """How often each value of the high bits occurs, and whether no lower ones are set. Of weights that are float16's,
    as many bits are high as these have."""
    name, read = part
    weights = read().reshape(-1)
    with np.errstate(over="ignore"):  # see magnitude_bits
        words = weights.astype(np.float32, copy=False).view(np.uint32)
    used = int(np.bitwise_or.reduce(words)) & MAGNITUDE
    lowest = (used & -used).bit_length() - 1 if used else LOW_BITS
    bits = HIGH_BITS + HALF_BITS * (LOW_BITS - HALF_BITS <= lowest < LOW_BITS)
    counts = codec.default().count(words, mask=MAGNITUDE, shift=31 - bits, bins=1 << bits)
    if counts[INFINITE >> 31 - bits :].any():
        check_finite(name, weights)
    return counts, lowest >= 31 - bits


def _count_low(read: Callable[[], Array], prefix: int) -> npt.NDArray[np.int64]:
    """Of the weights with these high bits, how often each value of the low bits occurs."""
    low = np.zeros(1 << LOW_BITS, np.int64)
    for chunk in _chunks(read()):
        bits = magnitude_bits(chunk)
        bits = bits[bits >> LOW_BITS == prefix]
        low += np.bincount(bits & (low.size - 1), minlength=low.size)
    return low


def count_ties(weights: Array, limit: Threshold) -> int:
    """How many of the weights equal the threshold."""
    return sum(int(np.count_nonzero(magnitude_bits(chunk) == limit.bits)) for chunk in _chunks(weights))


def deal(limit: Threshold, ties: Iterable[int]) -> Iterator[Threshold]:
    """The threshold for each of several parts, in order of storage, that hold so many ties each."""
    left = limit.ties
    for count in ties:
        yield replace(limit, ties=min(left, count))
        left -= min(left, count)


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
        return np.bitwise_and(weights.astype(np.float32, copy=False).view(np.uint32), np.uint32(MAGNITUDE))


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
