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
_STEPS = 64  # look-ups between two checks of which streams are done
_GROUP_PIECES = 1 << 10  # look-ups / _STEPS whose values are read together: what they take stays in the cache
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
    pieces, first = _look_up(data, streams, tables)
    begin = 0
    while begin < streams.counts.size:
        end = max(begin + 1, int(first.searchsorted(first[begin] + _GROUP_PIECES, "right")) - 1)
        group = Streams(*(column[begin:end] for column in streams))
        rows = pieces[first[begin] : first[end]].ravel()
        yield from _read(data, group, tables, rows, _STEPS * (first[begin:end] - first[begin]))
        begin = end


def _read(
    data: NDArray[np.uint8],
    streams: Streams,
    tables: _Tables,
    rows: NDArray[np.uint32],
    begins: NDArray[np.int64],
) -> Iterator[NDArray[np.uint16] | None]:
    """What `decode` gives for some streams, whose look-ups stand one after another in rows, from `begins` on."""
    found = np.add.reduceat(tables.rows.sizes.take(rows), begins, dtype=np.int64)
    values = np.compress(tables.rows.taken.take(rows).view(np.bool_), tables.rows.values.take(rows).view(np.uint16))
    starts = np.cumsum(found) - found
    place = np.repeat(np.searchsorted(tables.codes, streams.codes).astype(np.int32) * _ROWS, found)
    place += values
    lengths = np.append(tables.lengths.take(place), np.uint8(0))
    # Every second sum is that of a stream's own codewords; those between are of what the last look-ups read too much.
    ends = starts + np.minimum(found, streams.counts)
    bits = np.add.reduceat(lengths, np.stack([starts, ends], axis=1).ravel(), dtype=np.int64)[::2]
    left = 8 * streams.lengths - bits
    padding = data[streams.starts + streams.lengths - 1] & ((1 << np.clip(left, 0, 7)) - 1)
    good = (found >= streams.counts) & (left >= 0) & (left < 8) & (padding == 0)
    for start, end, whole in zip(starts.tolist(), ends.tolist(), good.tolist(), strict=True):
        yield values[start:end] if whole else None


class _Rows(NamedTuple):
    """What the next 16 bits of a stream hold.

    values: uint64 [rows], four uint16 values; taken: uint32 [rows], which of them count, one byte each;
    sizes: uint8 [rows], how many; bits: uint8 [rows], their codewords' length, 0 where the first codeword is longer
    than 16 bits.
    """

    values: NDArray[np.uint64]
    taken: NDArray[np.uint32]
    sizes: NDArray[np.uint8]
    bits: NDArray[np.uint8]


class _Tables(NamedTuple):
    """The tables of several codes, one after another.

    rows: 65536 of each code, then 65536 that hold their own number, for long codewords, and one that holds nothing.
    orders: int64 [codes]; escapes: int64 [codes], zero bits of the escape, 0 if the code has none;
    lengths: uint8 [codes * 65536], bits of the codewords of all values.
    """

    codes: tuple[int, ...]
    rows: _Rows
    orders: NDArray[np.int64]
    escapes: NDArray[np.int64]
    lengths: NDArray[np.uint8]


def _look_up(
    data: NDArray[np.uint8], streams: Streams, tables: _Tables
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The rows of the tables that each stream goes through: as many as its values need or its bytes give, and more.

    They come in pieces, uint32 [pieces, _STEPS]; those of stream i are first[i] to first[i + 1] - 1.
    """
    units = data.view(">u4").astype(np.uint64)
    words = units[:-1] << np.uint64(32) | units[1:]
    rounds: list[tuple[NDArray[np.int64], NDArray[np.uint32]]] = []
    live = np.arange(streams.counts.size)
    left = streams.counts
    base = np.searchsorted(tables.codes, streams.codes) * _ROWS
    position = 8 * streams.starts
    end = position + 8 * streams.lengths
    while live.size:
        chunk = np.empty((_STEPS, live.size), dtype=np.int64)
        _run(words, tables, position, base, chunk)
        rounds.append((live, chunk.T.astype(np.uint32, order="C")))
        left = left - tables.rows.sizes.take(chunk).sum(axis=0, dtype=np.int64)
        more = (left > 0) & (position < end)
        if not more.all():
            live, left, position, base, end = (lane[more] for lane in (live, left, position, base, end))
    first = np.zeros(streams.counts.size + 1, dtype=np.int64)
    for lanes, _ in rounds:
        first[lanes + 1] += 1
    np.cumsum(first, out=first)
    pieces = np.empty((int(first[-1]), _STEPS), dtype=np.uint32)
    for number, (lanes, rows) in enumerate(rounds):
        pieces[first[lanes] + number] = rows
    return pieces, first


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
        tables.rows.bits.take(row, out=bits, mode="clip")
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
    code = base[lanes] >> _WINDOW
    order, most = tables.orders[code], tables.escapes[code]
    zeros = 48 - _bit_lengths((bits >> np.uint64(16)).astype(np.int64))
    quotient = np.minimum(zeros, most)
    length = 2 * zeros - quotient + 1 + order
    codeword = bits >> (64 - np.minimum(length, _LONGEST)).astype(np.uint64)
    value = codeword.astype(np.int64) + ((quotient - 1) << order)
    valid = (length <= _LONGEST) & (value < _ROWS)
    row[lanes] = len(tables.codes) * _ROWS + np.where(valid, value, _ROWS)
    position[lanes] += np.where(valid, length, _NO_CODEWORD)


def _stack(codes: tuple[int, ...]) -> _Tables:
    parts = [*(_table(code) for code in codes), _single_values()]
    rice = [family_of(code) is Family.GOLOMB_RICE for code in codes]
    return _Tables(
        codes,
        _Rows(*(np.concatenate(column) for column in zip(*parts, strict=True))),
        orders=np.array([order_of(code) for code in codes], dtype=np.int64),
        escapes=np.where(rice, np.int64(_ESCAPE), np.int64(0)),
        lengths=np.concatenate([_lengths(code) for code in codes] or [np.empty(0, np.uint8)]),
    )


@cache
def _table(code: int) -> _Rows:
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
    return _Rows(values.view(np.uint64)[:, 0], taken.view(np.uint32)[:, 0], sizes, bits.astype(np.uint8))


@cache
def _single_values() -> _Rows:
    values = np.zeros((_ROWS + 1, _SLOTS), dtype=np.uint16)
    values[:_ROWS, 0] = np.arange(_ROWS)
    taken = np.zeros((_ROWS + 1, _SLOTS), dtype=np.bool_)
    taken[:_ROWS, 0] = True
    sizes = taken[:, 0].astype(np.uint8)
    return _Rows(values.view(np.uint64)[:, 0], taken.view(np.uint32)[:, 0], sizes, np.zeros_like(sizes))


def _bit_lengths(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """floor(log2(n)) + 1, and 0 of 0, of numbers below 2^53."""
    return np.frexp(numbers.astype(np.float64))[1].astype(np.int64)


@cache
def _lengths(code: int) -> NDArray[np.uint8]:
    return code_lengths(np.arange(_ROWS, dtype=np.int64), code).astype(np.uint8)
