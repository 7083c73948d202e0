"""Which layout and order code a tensor in the fewest bits: exact costs from histograms (docs/format.md, 3 to 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bsexport_runtime.format import Layout, geometry

Int64s = npt.NDArray[np.int64]

ORDERS = range(16)
RUN_LIMIT = 1 << 16  # the largest block, and so the longest run
CHUNK = 1 << 18  # weights looked at together: the temporary arrays stay in the cache


@dataclass(frozen=True)
class Coding:
    """How a tensor's symbols are written. bits: of the codewords alone, without tables, index and padding."""

    layout: Layout
    level_order: int
    run_order: int
    bits: int


def eg_bits(counts: Int64s, order: int) -> int:
    """Bits of all codewords when value x occurs counts[x] times: sum of 2*floor(log2(x + 2^k)) - k + 1."""
    if counts.size == 0:
        return 0
    values = np.arange(counts.size, dtype=np.int64) + (1 << order)
    lengths = 2 * (np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1) - order + 1
    return int(counts @ lengths)


def best_order(counts: Int64s) -> tuple[int, int]:
    """The order with the fewest bits (the smallest such) and those bits."""
    bits, order = min((eg_bits(counts, order), order) for order in ORDERS)
    return order, bits


def count_runs(levels: npt.NDArray[np.int32], symbol_0: int) -> Int64s:
    """How often each run length of the level `symbol_0` stands before another level of its block: int64 [longest + 1].

    levels: the whole tensor, int32, any shape.
    """
    rows, cols = levels.shape[0], levels.size // levels.shape[0]
    block_rows, block_cols = geometry(levels.shape)
    starts = np.add.outer(np.arange(0, rows, block_rows) * cols, np.arange(0, cols, block_cols)).reshape(-1)
    flat = levels.reshape(-1)
    runs = np.zeros(RUN_LIMIT, np.int64)
    for part in np.array_split(starts, max(1, levels.size // CHUNK)):
        begin, after = part[0], starts[starts.searchsorted(part[-1], "right") :]
        end = int(after[0]) if after.size else flat.size
        coded = np.flatnonzero(flat[begin:end] != symbol_0) + begin
        block_start = part[part.searchsorted(coded, "right") - 1]
        previous = np.concatenate([[begin - 1], coded[:-1]])[: coded.size]
        runs += np.bincount(coded - 1 - np.maximum(previous, block_start - 1), minlength=runs.size)
    return np.trim_zeros(runs, "b")


def choose(counts: Int64s, levels: npt.NDArray[np.int32], symbol_0: int, order: int | None) -> Coding:
    """The coding of least cost; with an order given, the EG layout in that order (the paper's form).

    counts: how often each symbol occurs, int64 [symbols], falling. levels: the tensor's levels, int32.
    """
    if order is not None:
        return Coding(Layout.EG, order, 0, eg_bits(counts, order))
    level_order, bits = best_order(counts)
    plain = Coding(Layout.EG, level_order, 0, bits)
    if 4 * int(counts[0]) < levels.size:
        return plain  # runs pay from about two thirds of zeros on; below a quarter they are not worth the counting
    run_order, run_bits = best_order(count_runs(levels, symbol_0))
    level_order, level_bits = best_order(counts[1:])
    runs = Coding(Layout.RL, level_order, run_order, run_bits + level_bits)
    return min(plain, runs, key=lambda coding: coding.bits)
