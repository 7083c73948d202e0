"""The codebook's bitstream: levels, and with pairs the classes of their symbols (docs/format.md, section 4)."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from bsexport_runtime import codes
from bsexport_runtime.codes import Family
from bsexport_runtime.errors import BlobError, Status

MAX_LEVEL = 1 << 24
MAX_CLASS = 63

_LEVEL_BITS = 53  # of the longest codeword of a level
_CLASS_BITS = 13  # of the longest codeword of a class
_CLASS_CODE = Family.EXP_GOLOMB.code(0)


class Codebook(NamedTuple):
    """levels: of each symbol, int32 [symbols]; classes: of symbols 1, 2 ..., uint8 [symbols - 1]; None: no pairs."""

    levels: NDArray[np.int32]
    classes: NDArray[np.uint8] | None


def read(data: bytes, symbols: int, order: int, *, pairs: bool) -> Codebook:
    """The codebook of a bitstream that ends with data, whose levels are in the exp-Golomb code of `order`.

    Raises BlobError (BAD_CODEBOOK) unless it holds exactly `symbols` levels within +-2^24, and with pairs as many
    classes less one, none above 63.
    """
    classes = symbols - 1 if pairs else 0
    shortest, longest = (order + 1) * symbols + classes, _LEVEL_BITS * symbols + _CLASS_BITS * classes
    if not shortest <= 8 * len(data) <= longest + 7:
        _refuse(f"codebook of {symbols} levels cannot take {len(data)} bytes")
    bits = "".join(f"{byte:08b}" for byte in data)
    codes_of_levels, position = _read_values(bits, 0, symbols, order, "level")
    steps = np.where(codes_of_levels % 2, (codes_of_levels + 1) // 2, -(codes_of_levels // 2))
    rises, position = _read_values(bits, position, classes, 0, "class")
    if len(bits) - position > 7 or "1" in bits[position:]:
        _refuse(f"codebook goes on after its {symbols} levels" + pairs * " and their classes")
    levels = _unfold(np.cumsum(steps))
    if not pairs:
        return Codebook(levels, None)
    rising = np.cumsum(rises)
    if rising[-1] > MAX_CLASS:
        _refuse(f"class {rising[-1]} of the last symbol is above {MAX_CLASS}")
    return Codebook(levels, rising.astype(np.uint8))


def write(codebook: Codebook) -> tuple[int, bytes]:
    """The order with the shortest bitstream for the levels (the smallest such order) and the whole bitstream."""
    levels = codebook.levels.astype(np.int64)
    steps = np.diff(2 * np.abs(levels) - (levels > 0), prepend=0)
    values = np.where(steps > 0, 2 * steps - 1, -2 * steps)
    orders = [Family.EXP_GOLOMB.code(order) for order in range(codes.MAX_ORDER + 1)]
    lengths = [int(codes.code_lengths(values, order).sum()) for order in orders]
    order = lengths.index(min(lengths))
    bits = codes.encode_bits(values, orders[order])
    if codebook.classes is not None:
        classes = np.concatenate([[0], codebook.classes.astype(np.int64)])
        rises = classes[1:] - classes[:-1]
        bits = np.concatenate([bits, codes.encode_bits(rises, _CLASS_CODE)])
    return order, np.packbits(bits).tobytes()


def pairs_by_rank(classes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The pairs of symbols 1 to A in the order of their ranks (section 6): a * A + b - A - 1 of each, int64 [A * A]."""
    sums = np.add.outer(classes.astype(np.int64), classes.astype(np.int64))
    return np.argsort(sums.ravel(), kind="stable")


def _read_values(bits: str, position: int, count: int, order: int, what: str) -> tuple[NDArray[np.int64], int]:
    """`count` values in the exp-Golomb code of an order, and where they end."""
    values = np.empty(count, dtype=np.int64)
    for place in range(count):
        one = bits.find("1", position)
        end = 2 * one - position + order + 1
        if one < 0 or end > len(bits) or end - position > _LEVEL_BITS:
            _refuse(f"codebook {what} {place} of {count} is no whole codeword")
        values[place] = int(bits[one:end], 2) - (1 << order)
        position = end
    return values, position


def _unfold(folded: NDArray[np.int64]) -> NDArray[np.int32]:
    """The levels l of z(l) = 0, 1, 2, 3, 4 ... (0, +1, -1, +2, -2 ...)."""
    wrong = (folded < 0) | (folded > 2 * MAX_LEVEL)
    if wrong.any():
        _refuse(f"codebook level {int(wrong.argmax())} lies beyond +-2^24")
    return np.where(folded % 2, (folded + 1) // 2, -(folded // 2)).astype(np.int32)


def _refuse(text: str) -> NoReturn:
    raise BlobError(Status.BAD_CODEBOOK, f"blob: {text}")
