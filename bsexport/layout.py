"""Which layout and codes store a tensor in the fewest bytes: costs from histograms (docs/format.md, 2 to 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bsexport.codebook import Histogram
from bsexport_runtime import codebook, codes, format
from bsexport_runtime.codebook import MAX_CLASS, Codebook
from bsexport_runtime.codes import Family
from bsexport_runtime.format import Layout

Int64s = npt.NDArray[np.int64]

CHUNK = 1 << 18  # weights looked at together: the temporary arrays stay in the cache
PADDING_BITS = 3.5  # what a stream's last byte has left over, on average
INDEX_WIDTH = 2
FAMILIES = {"eg": Family.EXP_GOLOMB, "rice": Family.GOLOMB_RICE}
LAYOUTS = {"eg": Layout.EG, "bm": Layout.BM, "rl": Layout.RL}


@dataclass(frozen=True)
class Allowed:
    """What may be chosen from. order: of the EG layout's codes, for nothing but those; None: any."""

    layouts: tuple[Layout, ...] = tuple(LAYOUTS.values())
    families: tuple[Family, ...] = tuple(FAMILIES.values())
    order: int | None = None


@dataclass(frozen=True)
class Coding:
    """How a tensor's symbols are written.

    level_code, run_code: code bytes (docs/format.md, section 3). pair_classes: uint8 [symbols - 1], None for no pairs.
    bits: what the blocks take, bitmaps included and padding not, and so a little less than the payload.
    cost: the whole blob in bits, everything counted: head, codebook, classes, index, and padding at its mean.
    """

    layout: Layout
    level_code: int
    run_code: int
    pair_classes: npt.NDArray[np.uint8] | None
    bits: int
    cost: float


Form = tuple[npt.NDArray[np.uint8] | None, int, int]
"""The classes of a way to write levels, its code and its bits."""


class Streams(NamedTuple):
    """Histograms of what a tensor's blocks hold besides its symbols, int64.

    runs: how often each run length of symbol 0 stands before another symbol. pairs: how often each two of A symbols
    follow each other in pairs, at a * A + b for symbols a + 1 and b + 1; empty if the codebook is too large.
    """

    runs: Int64s
    pairs: Int64s


def allowed(layout: str | None, family: str | None, order: int | None) -> Allowed:
    """What a recipe's options leave to choose from; an order alone asks for the paper's form: EG, exp-Golomb."""
    if order is not None:
        return Allowed((Layout.EG,), (Family.EXP_GOLOMB,), order)
    everything = Allowed()
    return Allowed(
        everything.layouts if layout is None else (LAYOUTS[layout],),
        everything.families if family is None else (FAMILIES[family],),
    )


def code_name(code: int) -> str:
    """A code byte in words: "eg 0", "rice 3"."""
    names = {family: name for name, family in FAMILIES.items()}
    return f"{names[codes.family_of(code)]} {codes.order_of(code)}"


def code_bits(counts: Int64s, code: int) -> int:
    """Bits of all codewords when value x occurs counts[x] times."""
    return int(counts @ _code_lengths(code, 1 << counts.size.bit_length())[: counts.size])


@cache
def _code_lengths(code: int, values: int) -> Int64s:
    return codes.code_lengths(np.arange(values, dtype=np.int64), code)


def best_code(
    counts: Int64s, families: Sequence[Family] = (Family.EXP_GOLOMB,), order: int | None = None
) -> tuple[int, int]:
    """The code with the fewest bits (the smallest such) and those bits."""
    orders = range(codes.MAX_ORDER + 1) if order is None else (order,)
    every = [family.code(k) for family in families for k in orders]
    bits, code = min((code_bits(counts, code), code) for code in every)
    return code, bits


def pair_classes(counts: Int64s) -> npt.NDArray[np.uint8]:
    """The classes of symbols 1, 2 ... (section 4): uint8 [symbols - 1], from how often they occur."""
    surprise = np.rint(2 * np.log2(counts[1] / counts[1:]))
    classes: npt.NDArray[np.uint8] = np.minimum(surprise, MAX_CLASS).astype(np.uint8)
    return classes


def choose(symbols: Histogram, levels: npt.NDArray[np.int32], limits: Allowed) -> Coding:
    """The coding of least cost.

    symbols: the histogram of the levels in the order of their symbols. levels: the tensor's, int32, any shape.
    """
    return choose_by(symbols, levels.shape, lambda: count_streams(levels, symbols), limits)


def choose_by(symbols: Histogram, shape: Sequence[int], count: Callable[[], Streams], limits: Allowed) -> Coding:
    """The coding of least cost of a tensor whose levels are counted elsewhere, if that is needed at all.

    symbols: the histogram of the levels in the order of their symbols. shape: the tensor's. count: counts its streams.
    """
    return min(_candidates(symbols, shape, count, limits), key=lambda coding: coding.cost)


def _candidates(
    symbols: Histogram, shape: Sequence[int], count: Callable[[], Streams], limits: Allowed
) -> Iterator[Coding]:
    """The best codes for each layout, without and with pairs. Each stream's code is chosen alone: costs add up."""
    counts, families = symbols.counts, limits.families
    sparse = [layout for layout in limits.layouts if layout is not Layout.EG]
    if Layout.EG in limits.layouts:
        code, bits = best_code(counts, families, limits.order)
        yield _coding(Layout.EG, symbols, shape, code, 0, None, bits)
        if 4 * int(counts[0]) < math.prod(shape):
            return  # runs and bitmaps pay from about a third of zeros on: below a quarter they are not worth counting
    if not sparse:
        return
    streams = count()
    run_code, run_bits = best_code(streams.runs, families)
    forms: list[Form] = [(None, *best_code(counts[1:], families))]
    if streams.pairs.size:
        classes = pair_classes(counts)
        forms.append((classes, *best_code(streams.pairs[codebook.pairs_by_rank(classes)], families)))
    for form, code, bits in forms:
        if Layout.BM in sparse:
            yield _coding(Layout.BM, symbols, shape, code, 0, form, bits + _bitmap_bits(shape))
        if Layout.RL in sparse:
            yield _coding(Layout.RL, symbols, shape, code, run_code, form, bits + run_bits)


def _coding(
    layout: Layout,
    symbols: Histogram,
    shape: Sequence[int],
    level_code: int,
    run_code: int,
    classes: npt.NDArray[np.uint8] | None,
    bits: int,
) -> Coding:
    """Count what a blob has besides its blocks' bits; the index has two-byte counts, as all but huge blocks do."""
    _, codebook_bits = codebook.write(Codebook(symbols.levels, classes))
    block_rows, block_cols = format.geometry(shape)
    rows, cols = shape[0], math.prod(shape[1:])
    blocks = -(-rows // block_rows) * -(-cols // block_cols)
    entry = layout.counts * INDEX_WIDTH + 4
    head = format.head_bytes(len(shape), len(codebook_bits), blocks * entry)
    streams = 2 if layout is Layout.RL else 1
    return Coding(layout, level_code, run_code, classes, bits, bits + 8 * head + PADDING_BITS * streams * blocks)


def _bitmap_bits(shape: Sequence[int]) -> int:
    weights = np.diff(format.block_bounds(shape, *format.geometry(shape)))
    return 8 * int(format.bitmap_bytes(weights).sum())


def count_streams(levels: npt.NDArray[np.int32], symbols: Histogram, grid: tuple[int, int] | None = None) -> Streams:
    """Count runs of symbol 0 and pairs of other symbols, block by block.

    levels: a tensor's, or those of consecutive blocks of one (see `slabs.Slab`), whose geometry is `grid`.
    """
    bounds = format.block_bounds(levels.shape, *(grid or format.geometry(levels.shape)))
    flat = levels.reshape(-1)
    alphabet = symbols.levels.size - 1 if symbols.levels.size in format.PAIR_SYMBOLS else 0
    runs, pairs = np.zeros(0, np.int64), np.zeros(alphabet**2, np.int64)
    by_level = np.argsort(symbols.levels)
    for part in np.array_split(bounds[:-1], math.ceil(levels.size / CHUNK)):
        if part.size == 0:
            continue
        begin, end = int(part[0]), int(bounds[bounds.searchsorted(part[-1]) + 1])
        coded = np.flatnonzero(flat[begin:end] != symbols.levels[0]) + begin
        per_block = np.diff(coded.searchsorted(part), append=coded.size)
        block = np.repeat(np.arange(part.size), per_block)
        runs = _sum(runs, np.bincount(_runs(coded, part[block])))
        if alphabet:
            values = by_level[symbols.levels[by_level].searchsorted(flat[coded])] - 1
            pairs += np.bincount(_pairs(values, block, alphabet), minlength=pairs.size)
    return Streams(runs, pairs)


def merge_streams(parts: Iterable[Streams]) -> Streams:
    """The streams of several parts of a tensor together, at least one."""
    return reduce(lambda one, other: Streams(_sum(one.runs, other.runs), one.pairs + other.pairs), parts)


def _sum(one: Int64s, other: Int64s) -> Int64s:
    """The sum of two histograms, which may differ in length."""
    longer, shorter = (one, other) if one.size > other.size else (other, one)
    total = longer.copy()
    total[: shorter.size] += shorter
    return total


def _runs(coded: Int64s, block_start: Int64s) -> Int64s:
    """How many weights lie between each coded one and the previous one of its block, or the block's start."""
    previous = np.concatenate([[-1], coded[:-1]])[: coded.size]
    runs: Int64s = coded - 1 - np.maximum(previous, block_start - 1)
    return runs


def _pairs(values: Int64s, block: Int64s, alphabet: int) -> Int64s:
    """Each block's values two by two, as a * alphabet + b; the last of an odd number goes with 0."""
    place = np.arange(values.size) - block.searchsorted(block)
    first = np.flatnonzero(place % 2 == 0)
    second = np.append(values, 0)[first + 1]
    alone = np.append(block, -1)[first + 1] != block[first]
    pairs: Int64s = values[first] * alphabet + np.where(alone, 0, second)
    return pairs
