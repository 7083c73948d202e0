"""Codewords in numpy: their lengths, the encoder, and a decoder that runs many bitstreams in lock-step.

Codes and bitstreams are those of docs/format.md, section 3; a code is named by its byte, family * 16 + order. Values
are below 65536, as in level and run streams, but for the encoder, which the codebook uses too.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SLOP_BYTES = 8
"""Bytes that have to follow the last stream in the buffer given to `decode`."""

MAX_ORDER = 15

_ESCAPE = 16  # zero bits that turn a Golomb-Rice codeword into an exp-Golomb one
_WINDOW = 16  # bits of one look-up
_ROWS = 1 << _WINDOW
_SLOTS = 4  # values of one look-up: as many uint16 as a uint64 has
_STEPS = 128  # look-ups between two checks of which streams are done
_LONGEST = 47  # bits of the longest codeword of a value below 65536
_WITHIN_UNIT = np.uint64(31)
_TO_WINDOW = np.uint64(64 - _WINDOW)
_NO_CODEWORD = np.int64(1) << 48  # moves a stream past its end, whatever its length


class Family(IntEnum):
    """The upper four bits of a code byte."""

    EXP_GOLOMB = 0
    GOLOMB_RICE = 1

    def code(self, order: int) -> int:
        """The code byte of this family in an order from 0 to 15."""
        return self << 4 | order


def family_of(code: int) -> Family:
    """The family of a code byte."""
    return Family(code >> 4)


def order_of(code: int) -> int:
    """The order of a code byte."""
    return code & MAX_ORDER


MAX_CODE = max(Family).code(MAX_ORDER)


class Streams(NamedTuple):
    """Where streams lie in a buffer and what they hold: int64 [streams] each."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    codes: NDArray[np.int64]
    counts: NDArray[np.int64]


def code_lengths(values: NDArray[np.int64], code: int) -> NDArray[np.int64]:
    """Bits of each value's codeword, for values from 0 to 2^52."""
    order = order_of(code)
    if family_of(code) is Family.EXP_GOLOMB:
        return 2 * _bit_lengths(values + (1 << order)) - 1 - order
    quotients = values >> order
    escaped = np.maximum(values - (_ESCAPE << order), 0)
    return np.where(
        quotients < _ESCAPE, quotients + 1 + order, _ESCAPE + code_lengths(escaped, Family.EXP_GOLOMB.code(order))
    )


def encode(values: NDArray[np.int64], code: int) -> bytes:
    """The bitstream of some values, int64 [n] from 0 to 2^31, zero bits up to a whole byte."""
    return np.packbits(encode_bits(values, code)).tobytes()


def encode_bits(values: NDArray[np.int64], code: int) -> NDArray[np.uint8]:
    """The bits of the values' codewords, one an element: uint8."""
    lengths = code_lengths(values, code)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if ends.size else 0
    # One number per bit of the stream: how many bits of its codeword come after it.
    after = np.repeat(ends, lengths) - 1 - np.arange(total)
    bits = np.repeat(_codewords(values, code), lengths) >> after & 1
    return bits.astype(np.uint8)


def _codewords(values: NDArray[np.int64], code: int) -> NDArray[np.int64]:
    """Each value's codeword as a number: what follows its leading zeros."""
    order = order_of(code)
    if family_of(code) is Family.EXP_GOLOMB:
        return values + (1 << order)
    # Either 1 and the low bits of x, or x - 16 * 2^k + 2^k: both are x + 2^k less some multiple of 2^k.
    codewords: NDArray[np.int64] = values + ((1 - np.minimum(values >> order, _ESCAPE)) << order)
    return codewords


def decode(data: NDArray[np.uint8], streams: Streams) -> Iterator[NDArray[np.uint16] | None]:
    """Each stream's values, uint16 [count], or None if it is no stream of that many values: a codeword is cut off or
    too large, the padding is not zero, or bytes are left.

    data: uint8, a multiple of 4 bytes, SLOP_BYTES past the last stream included; counts are at least 1.
    """
    tables = _stack(tuple(sorted(set(streams.codes.tolist()))))
    for stream, pieces in enumerate(_look_up(data, streams, tables)):
        rows = np.concatenate(pieces)
        count, code = int(streams.counts[stream]), int(streams.codes[stream])
        values = np.compress(tables.taken.take(rows).view(np.bool_), tables.values.take(rows).view(np.uint16))[:count]
        start, length = int(streams.starts[stream]), int(streams.lengths[stream])
        bits = int(_lengths(code).take(values).sum(dtype=np.int64))
        left = 8 * length - bits
        whole = values.size == count and 0 <= left < 8
        yield values if whole and not data[start + length - 1] & ((1 << left) - 1) else None


class _Tables(NamedTuple):
    """What the next 16 bits of a stream hold, for one code or for several, one after another.

    values: uint64 [rows], four uint16 values; taken: uint32 [rows], which of them count, one byte each;
    sizes: uint8 [rows], how many; bits: uint8 [rows], their codewords' length, 0 where the first codeword is longer
    than 16 bits. Then come 65536 rows that hold their own number, for those, and one that holds nothing.
    """

    codes: tuple[int, ...]
    values: NDArray[np.uint64]
    taken: NDArray[np.uint32]
    sizes: NDArray[np.uint8]
    bits: NDArray[np.uint8]


def _look_up(data: NDArray[np.uint8], streams: Streams, tables: _Tables) -> list[list[NDArray[np.uint32]]]:
    """The rows of the tables that each stream goes through, in pieces: as many as its values need or its bytes give,
    and some more."""
    units = data.view(">u4").astype(np.uint64)
    words = units[:-1] << np.uint64(32) | units[1:]
    pieces: list[list[NDArray[np.uint32]]] = [[] for _ in streams.starts]
    live = np.arange(len(pieces))
    left = streams.counts
    base = np.searchsorted(tables.codes, streams.codes) * _ROWS
    position = 8 * streams.starts
    end = position + 8 * streams.lengths
    while live.size:
        chunk = np.empty((_STEPS, live.size), dtype=np.int64)
        _run(words, tables, position, base, chunk)
        for lane, rows in zip(live.tolist(), chunk.T.astype(np.uint32, order="C"), strict=True):
            pieces[lane].append(rows)
        left = left - tables.sizes.take(chunk).sum(axis=0, dtype=np.int64)
        more = (left > 0) & (position < end)
        if not more.all():
            live, left, position, base, end = (lane[more] for lane in (live, left, position, base, end))
    return pieces


def _run(
    words: NDArray[np.uint64],
    tables: _Tables,
    position: NDArray[np.int64],
    base: NDArray[np.int64],
    chunk: NDArray[np.int64],
) -> None:
    """Look up the next rows of every lane, as many as chunk has, and move the lanes' bit positions past them.

    words: the 64 bits from each fourth byte on. Nothing is allocated in the loop, and a lane that has run off its
    stream reads whatever is there: `decode` counts its bits.
    """
    unit = np.empty_like(position)
    word = np.empty(position.size, dtype=np.uint64)
    shift = np.empty(position.size, dtype=np.uint64)
    bits = np.empty(position.size, dtype=np.uint8)
    for row in chunk:
        np.right_shift(position, 5, out=unit)
        words.take(unit, out=word, mode="clip")
        np.bitwise_and(position.view(np.uint64), _WITHIN_UNIT, out=shift)
        np.left_shift(word, shift, out=word)
        np.right_shift(word, _TO_WINDOW, out=shift)
        np.add(shift.view(np.int64), base, out=row)
        tables.bits.take(row, out=bits, mode="clip")
        np.add(position, bits, out=position)
        if np.count_nonzero(bits) < bits.size:
            lanes = np.flatnonzero(bits == 0)
            _take_long(_next_64_bits(words, position[lanes]), lanes, tables, position, base, row)


def _next_64_bits(words: NDArray[np.uint64], position: NDArray[np.int64]) -> NDArray[np.uint64]:
    unit, shift = position >> 5, position.view(np.uint64) & _WITHIN_UNIT
    after = words.take(unit + 1, mode="clip") & np.uint64(0xFFFFFFFF)
    bits: NDArray[np.uint64] = np.left_shift(words.take(unit, mode="clip"), shift)
    bits |= np.right_shift(after, np.uint64(32) - shift)
    return bits


def _take_long(
    bits: NDArray[np.uint64],
    lanes: NDArray[np.int64],
    tables: _Tables,
    position: NDArray[np.int64],
    base: NDArray[np.int64],
    row: NDArray[np.int64],
) -> None:
    """Decode the codewords of 17 to 47 bits that some lanes are at: bits holds the next 64."""
    codes = np.asarray(tables.codes)[base[lanes] // _ROWS]
    order, rice = codes & MAX_ORDER, codes >> 4 == Family.GOLOMB_RICE
    zeros = 48 - _bit_lengths((bits >> np.uint64(16)).astype(np.int64))
    quotient = np.where(rice, np.minimum(zeros, _ESCAPE), 0)
    length = 2 * zeros - quotient + 1 + order
    codeword = bits >> (64 - np.minimum(length, _LONGEST)).astype(np.uint64)
    value = codeword.astype(np.int64) + ((quotient - 1) << order)
    valid = (length <= _LONGEST) & (value < _ROWS)
    row[lanes] = len(tables.codes) * _ROWS + np.where(valid, value, _ROWS)
    position[lanes] += np.where(valid, length, _NO_CODEWORD)


def _stack(codes: tuple[int, ...]) -> _Tables:
    parts = [_table(code) for code in codes] + [_single_values()]
    return _Tables(codes, *(np.concatenate(column) for column in list(zip(*parts, strict=True))[1:]))


@cache
def _table(code: int) -> _Tables:
    """The rows of one code: as many codewords as fit the 16 bits, four at most."""
    order, rice = order_of(code), family_of(code) is Family.GOLOMB_RICE
    window = np.arange(_ROWS, dtype=np.int64)
    values = np.zeros((_ROWS, _SLOTS), dtype=np.uint16)
    taken = np.zeros((_ROWS, _SLOTS), dtype=np.bool_)
    bits = np.zeros(_ROWS, dtype=np.int64)
    fits = np.ones(_ROWS, dtype=np.bool_)
    for slot in range(_SLOTS):
        rest = window << bits & (_ROWS - 1)
        zeros = _WINDOW - _bit_lengths(rest)
        quotient = zeros if rice else np.zeros_like(zeros)
        length = 2 * zeros - quotient + 1 + order
        fits &= bits + length <= _WINDOW
        value = (rest >> np.maximum(_WINDOW - length, 0)) + ((quotient - 1) << order)
        values[:, slot] = np.where(fits, value, 0)
        taken[:, slot] = fits
        bits += np.where(fits, length, 0)
    sizes = taken.sum(axis=1, dtype=np.uint8)
    return _Tables((code,), values.view(np.uint64)[:, 0], taken.view(np.uint32)[:, 0], sizes, bits.astype(np.uint8))


@cache
def _single_values() -> _Tables:
    values = np.zeros((_ROWS + 1, _SLOTS), dtype=np.uint16)
    values[:_ROWS, 0] = np.arange(_ROWS)
    taken = np.zeros((_ROWS + 1, _SLOTS), dtype=np.bool_)
    taken[:_ROWS, 0] = True
    sizes = taken[:, 0].astype(np.uint8)
    return _Tables((), values.view(np.uint64)[:, 0], taken.view(np.uint32)[:, 0], sizes, np.zeros_like(sizes))


def _bit_lengths(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """floor(log2(n)) + 1, and 0 of 0, of numbers below 2^53."""
    return np.frexp(numbers.astype(np.float64))[1].astype(np.int64)


@cache
def _lengths(code: int) -> NDArray[np.uint8]:
    return code_lengths(np.arange(1 << 16, dtype=np.int64), code).astype(np.uint8)
