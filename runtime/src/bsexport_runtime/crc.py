"""CRC-32C in numpy, over many byte ranges at once (docs/format.md, section 2).

A CRC's state advances linearly: state(A + B) = shift(state(A), length of B) xor state(B), with states that start at 0.
So every range is cut into rows that are run through in lock-step, four bytes a step, and the rows of a range are then
joined.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_REFLECTED_POLYNOMIAL = 0x82F63B78
_INVERTED = np.uint32(0xFFFFFFFF)
_ROW_BYTES = 256
_START = bytes.fromhex("54641f64")
"""The four bytes that take the state from 0 to 0xFFFFFFFF: put before a range, they stand for the initial value."""

Shift = tuple[NDArray[np.uint32], NDArray[np.uint32]]
"""What a number of zero bytes does to the low and to the high half of a state: uint32 [65536] each."""


def crc32c(data: ReadableBuffer) -> int:
    """CRC-32C of some bytes."""
    view = np.frombuffer(data, dtype=np.uint8)
    return int(crc32c_ranges(view, np.zeros(1, np.int64), np.array([view.size]))[0])


def crc32c_ranges(data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """CRC-32C of each data[start : start + length]: uint32 [ranges]."""
    rows = -(-(lengths + len(_START)) // _ROW_BYTES)
    ends = np.cumsum(rows)
    cells = np.zeros(int(ends[-1]) * _ROW_BYTES, dtype=np.uint8)
    start_bytes = np.frombuffer(_START, dtype=np.uint8)
    # Ranges end with their last row; zeros before the first byte leave a state of 0 as it is.
    for end, start, length in zip((ends * _ROW_BYTES).tolist(), starts.tolist(), lengths.tolist(), strict=True):
        cells[end - length : end] = data[start : start + length]
        cells[end - length - 4 : end - length] = start_bytes
    words = cells.view("<u4").reshape(-1, _ROW_BYTES // 4).T
    states = _join(np.ascontiguousarray(words), _shift(4))
    states = _shift_state(states, _shift(4))
    first = ends - rows
    joined = np.zeros(len(rows), dtype=np.uint32)
    for row in range(int(rows.max())):
        live = np.flatnonzero(rows > row)
        joined[live] = _shift_state(joined[live], _shift(_ROW_BYTES)) ^ states[first[live] + row]
    return joined ^ _INVERTED


def _join(parts: NDArray[np.uint32], shift: Shift) -> NDArray[np.uint32]:
    """The states after parts[0], parts[1] ... in turn: uint32 [parts, lanes] to uint32 [lanes]."""
    states: NDArray[np.uint32] = parts[0]
    for part in parts[1:]:
        states = _shift_state(states, shift) ^ part
    return states


def _shift_state(states: NDArray[np.uint32], shift: Shift) -> NDArray[np.uint32]:
    low, high = shift
    shifted: NDArray[np.uint32] = low[states & 0xFFFF] ^ high[states >> 16]
    return shifted


@cache
def _shift(zero_bytes: int) -> Shift:
    """The tables for a power of two of zero bytes."""
    columns = np.array([_REFLECTED_POLYNOMIAL, *(1 << bit for bit in range(31))], dtype=np.uint32)  # one zero bit
    for _ in range((8 * zero_bytes).bit_length() - 1):
        columns = _shift_state(columns, _tables(columns))
    return _tables(columns)


def _tables(columns: NDArray[np.uint32]) -> Shift:
    """All sums of the columns of bits 0 to 15, and of bits 16 to 31."""
    halves = []
    for half in (columns[:16], columns[16:]):
        table = np.zeros(1, dtype=np.uint32)
        for column in half:
            table = np.concatenate([table, table ^ column])
        halves.append(table)
    return halves[0], halves[1]
