"""What each code makes of the levels of some weights: the paper's table 3, and what pack chooses from."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bsexport import layout
from bsexport.codebook import Histogram, rank
from bsexport.layout import Allowed, best_code, code_bits
from bsexport_runtime import codes
from bsexport_runtime.codes import Family

ORDERS = range(6)
CODES = ("entropy", "fixed", "huffman", *(f"eg{k}" for k in ORDERS), "eg", "rice")
"""Of codewords alone: zeroth-order entropy; fixed length; Huffman; exp-Golomb in orders 0 to 5 and in the best one;
Golomb-Rice in the best order."""
LAYOUTS = tuple(f"layout_{name}" for name in layout.LAYOUTS)
"""Of whole blobs, side information included, in each layout and its best codes."""
PACKED = "packed"
"""Of the blobs that pack writes."""


@dataclass(frozen=True)
class Codes:
    """Bits of all codewords by code, of CODES; eg_order, rice_order: the best orders."""

    bits: dict[str, float]
    eg_order: int
    rice_order: int


def codes_of(histogram: Histogram) -> Codes:
    """What codes make of levels that share one codebook (algorithm 2): the symbol coded is a level's rank."""
    counts = rank(histogram).counts
    eg, eg_bits = best_code(counts)
    rice, rice_bits = best_code(counts, (Family.GOLOMB_RICE,))
    bits = {
        "entropy": histogram.entropy(),
        "fixed": fixed_bits(counts),
        "huffman": huffman_bits(counts),
        **{f"eg{k}": code_bits(counts, Family.EXP_GOLOMB.code(k)) for k in ORDERS},
        "eg": eg_bits,
        "rice": rice_bits,
    }
    return Codes(bits, codes.order_of(eg), codes.order_of(rice))


def fixed_bits(counts: npt.NDArray[np.int64]) -> int:
    """Bits of codewords that are all as long as the number of distinct symbols needs: none if there is but one."""
    return int(counts.sum()) * (counts.size - 1).bit_length()


def huffman_bits(counts: npt.NDArray[np.int64]) -> int:
    """Bits of the codewords of a Huffman code: what its inner nodes weigh together. None if there is but one symbol."""
    heap = counts.tolist()
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:
        least = heapq.heappop(heap)
        node = least + heap[0]
        heapq.heapreplace(heap, node)
        bits += node
    return bits


def layout_bits(symbols: Histogram, levels: npt.NDArray[np.int32], limits: Allowed) -> dict[str, float]:
    """Bits of a tensor's blob in each layout of LAYOUTS, with the codes of least cost among those allowed.

    symbols: the histogram of the levels in the order of their symbols. levels: the tensor's.
    """
    return {
        name: layout.choose(symbols, levels, Allowed((each,), limits.families)).cost
        for name, each in zip(LAYOUTS, layout.LAYOUTS.values(), strict=True)
    }
