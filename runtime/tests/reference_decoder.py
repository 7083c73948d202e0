"""A second reader of docs/format.md, in its order and in plain Python: the oracle that the backends are held against.

It imports nothing of the runtime, knows no table and no shortcut, and is meant to be read beside the page.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2}
ITEM_BYTES |= {17: 1, 18: 1, 19: 1, 20: 1}
RAW, EG, RL, BM = 0, 1, 2, 3
FLOATS = {1, 10, 11, 16}
LEVELS = {3: 8, 5: 16, 6: 32}


class RefusedError(Exception):
    """The blob breaks a rule of section 9; args[0] is the status."""


@dataclass
class Decoded:
    """levels: None for RAW; data: the weights' bytes in dtype."""

    layout: int
    dtype: int
    shape: tuple[int, ...]
    step: float
    codebook: list[int]
    levels: list[int] | None
    data: bytes

    def as_type(self, dtype: int) -> bytes:
        """Section 6: the weights in another type, or the levels."""
        if self.levels is None or dtype == self.dtype:
            require(dtype == self.dtype, 17)
            return self.data
        require(dtype in FLOATS or dtype in LEVELS, 17)
        if dtype in FLOATS:
            return b"".join(weight(level, self.step, dtype) for level in self.levels)
        half = 2 ** (LEVELS[dtype] - 1)
        require(all(-half <= level < half for level in self.codebook), 17)
        return b"".join(level.to_bytes(LEVELS[dtype] // 8, "little", signed=True) for level in self.levels)


def require(rule: bool, status: int) -> None:
    if not rule:
        raise RefusedError(status)


def crc32c(data: bytes) -> int:
    """Section 2."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


class Bits:
    """Section 3: a bitstream, read from the most significant bit of its first byte on."""

    def __init__(self, data: bytes, status: int) -> None:
        self.bits = "".join(format(byte, "08b") for byte in data)
        self.status = status
        self.place = 0

    def take(self, count: int) -> str:
        require(self.place + count <= len(self.bits), self.status)
        self.place += count
        return self.bits[self.place - count : self.place]

    def zeros(self, limit: int | None = None) -> int:
        """The zero bits up to a one, which is taken too, or up to the limit."""
        count = 0
        while count != limit and self.take(1) == "0":
            count += 1
        return count

    def value(self, code: int) -> int:
        """One codeword."""
        family, order = divmod(code, 16)
        if family == 1:
            quotient = self.zeros(limit=16)
            if quotient < 16:
                return quotient * 2**order + int("0" + self.take(order), 2)
        zeros = self.zeros()
        return int("1" + self.take(zeros + order), 2) - 2**order + (16 * 2**order if family == 1 else 0)

    def finish(self) -> None:
        rest = self.bits[self.place :]
        require(len(rest) < 8 and "1" not in rest, self.status)


def decode(blob: bytes) -> Decoded:
    """Sections 2 to 6, checked in the order of section 9."""
    require(len(blob) >= 48, 1)
    magic, version, layout, dtype, ndim = struct.unpack("<4sHBBB", blob[:9])
    level_code, run_code, codebook_code = blob[9:12]
    step_bits, symbols, block_rows, block_cols, codebook_bytes = struct.unpack("<5I", blob[12:32])
    payload_bytes, head_crc, width, pairs = struct.unpack("<QIBB", blob[32:46])
    require(magic == b"BSXB", 3)
    require(version == 0, 4)
    require(layout in (RAW, EG, RL, BM), 5)
    require(dtype in (ITEM_BYTES if layout == RAW else FLOATS), 6)
    require(1 <= ndim <= 8, 7)
    require(level_code < 32 and run_code < 32 and codebook_code < 16, 9)
    require(layout != RAW or level_code == codebook_code == 0, 9)
    require(layout == RL or run_code == 0, 9)
    require(width in (2, 4), 9)
    require(pairs == 0 or (layout in (RL, BM) and pairs == 1), 9)
    step = struct.unpack("<f", blob[12:16])[0]
    require(step_bits == 0 if layout == RAW else 0 < step < math.inf, 10)
    require(symbols == codebook_bytes == 0 if layout == RAW else 1 <= symbols <= 65536, 13)
    require(not pairs or 3 <= symbols <= 65, 13)
    require(blob[46:48] == bytes(2), 11)

    require(len(blob) >= 48 + 8 * ndim, 1)
    shape = struct.unpack(f"<{ndim}Q", blob[48 : 48 + 8 * ndim])
    require(min(shape) >= 1 and math.prod(shape) <= 2**40, 7)
    rows, cols = shape[0], math.prod(shape[1:])
    require(1 <= block_rows <= rows and 1 <= block_cols <= cols, 8)
    require((block_cols == cols or block_rows == 1) and block_rows * block_cols <= 65536, 8)
    counts = 3 if layout == RL else 1
    blocks = math.ceil(rows / block_rows) * math.ceil(cols / block_cols)
    index_start = 48 + 8 * ndim + codebook_bytes
    index_end = index_start + blocks * (counts * width + 4)
    head_bytes = math.ceil(index_end / 64) * 64
    require(len(blob) >= head_bytes, 1)
    require(crc32c(blob[:40] + bytes(4) + blob[44:head_bytes]) == head_crc, 12)
    require(blob[index_end:head_bytes] == bytes(head_bytes - index_end), 11)
    codebook, ranked = [], None
    if layout != RAW:
        codebook, ranked = read_codebook(blob[48 + 8 * ndim : index_start], symbols, codebook_code, pairs)
    sizes = [
        min(block_rows, rows - row) * min(block_cols, cols - col)
        for row in range(0, rows, block_rows)
        for col in range(0, cols, block_cols)
    ]
    letter = {2: "H", 4: "I"}[width]
    index = list(struct.iter_unpack(f"<{counts}{letter}I", blob[index_start:index_end]))
    bitmaps = [math.ceil(size / 8) if layout == BM else 0 for size in sizes]
    lengths = [sum(entry[: min(counts, 2)]) + bitmap for entry, bitmap in zip(index, bitmaps, strict=True)]
    require(sum(lengths) == payload_bytes, 14)
    level_least, run_least = level_code % 16 + 1, run_code % 16 + 1
    for size, entry in zip(sizes, index, strict=True):
        require(layout != RAW or entry[0] == size * ITEM_BYTES[dtype], 14)
        require(layout != EG or 8 * entry[0] >= size * level_least, 14)
        if layout == RL:
            run_bytes, level_bytes, coded, _ = entry
            require(coded <= size and (run_bytes == 0) == (level_bytes == 0) == (coded == 0), 14)
            values = math.ceil(coded / 2) if pairs else coded
            require(8 * run_bytes >= coded * run_least and 8 * level_bytes >= values * level_least, 14)
    require(len(blob) >= head_bytes + payload_bytes, 1)
    require(len(blob) <= head_bytes + payload_bytes, 2)

    data, found, place = b"", [], head_bytes
    for size, entry, length, bitmap in zip(sizes, index, lengths, bitmaps, strict=True):
        block = blob[place : place + length]
        place += length
        require(crc32c(block) == entry[-1], 15)
        if layout == RAW:
            data += block
        elif layout == EG:
            found += read_values(block, size, level_code)
        elif layout == RL:
            coded = read_coded(block[entry[0] :], entry[2], level_code, ranked)
            found += read_runs(block[: entry[0]], coded, size, run_code)
        else:
            found += read_bitmap(block[:bitmap], block[bitmap:], size, level_code, ranked)
        require(all(symbol < symbols for symbol in found[-size:]), 16)
    if layout == RAW:
        return Decoded(layout, dtype, shape, step, [], None, data)
    levels = [codebook[symbol] for symbol in found]
    data = b"".join(weight(level, step, dtype) for level in levels)
    return Decoded(layout, dtype, shape, step, codebook, levels, data)


Ranked = list[tuple[int, int]] | None


def read_codebook(data: bytes, symbols: int, code: int, pairs: int) -> tuple[list[int], Ranked]:
    """Section 4: the levels, and section 6: with pairs, the pairs of symbols by rank."""
    bits = Bits(data, 13)
    levels, z = [], 0
    for _ in range(symbols):
        s = bits.value(code)
        z += (s + 1) // 2 if s % 2 else -(s // 2)
        require(z >= 0, 13)
        level = (z + 1) // 2 if z % 2 else -(z // 2)
        require(abs(level) <= 2**24, 13)
        levels.append(level)
    classes = [0]
    for _ in range(symbols - 1 if pairs else 0):
        classes.append(classes[-1] + bits.value(0))
        require(classes[-1] <= 63, 13)
    bits.finish()
    both = range(1, symbols)
    ranked = sorted((classes[a] + classes[b], a, b) for a in both for b in both) if pairs else []
    return levels, [(a, b) for _, a, b in ranked] if pairs else None


def read_values(data: bytes, count: int, code: int) -> list[int]:
    """Section 3: a whole bitstream."""
    bits = Bits(data, 16)
    values = [bits.value(code) for _ in range(count)]
    bits.finish()
    return values


def read_coded(data: bytes, coded: int, code: int, ranked: Ranked) -> list[int]:
    """Section 6: the symbols of a level stream, none of them 0."""
    if ranked is None:
        return [value + 1 for value in read_values(data, coded, code)]
    ranks = read_values(data, math.ceil(coded / 2), code)
    require(all(rank < len(ranked) for rank in ranks), 16)
    symbols = [symbol for rank in ranks for symbol in ranked[rank]]
    require(symbols[coded:] in ([], [1]), 16)
    return symbols[:coded]


def read_runs(data: bytes, coded: list[int], size: int, code: int) -> list[int]:
    """Section 6, RL."""
    found: list[int] = []
    for run, symbol in zip(read_values(data, len(coded), code), coded, strict=True):
        require(len(found) + run < size, 16)
        found += [0] * run + [symbol]
    return found + [0] * (size - len(found))


def read_bitmap(bitmap: bytes, data: bytes, size: int, code: int, ranked: Ranked) -> list[int]:
    """Section 6, BM."""
    ones = [byte >> place & 1 for byte in bitmap for place in range(8)]
    require(not any(ones[size:]), 16)
    coded = iter(read_coded(data, sum(ones), code, ranked))
    return [next(coded) if one else 0 for one in ones[:size]]


def weight(level: int, step: float, dtype: int) -> bytes:
    """Section 6: one float32 product, which is exact in Python's float, then the type's own rounding."""
    value = rounded(level * step, "<f")
    if dtype == 1:
        return struct.pack("<f", value)
    if dtype == 11:
        return struct.pack("<d", value)
    if dtype == 10:
        return struct.pack("<e", rounded(value, "<e"))
    low = struct.unpack("<I", struct.pack("<f", value))[0]
    kept, dropped = low >> 16, low & 0xFFFF
    up = dropped > 0x8000 or (dropped == 0x8000 and kept % 2 == 1)
    return struct.pack("<H", kept + up)


def rounded(value: float, kind: str) -> float:
    """The nearest value of a struct type, ties to even; infinity beyond its largest."""
    try:
        return float(struct.unpack(kind, struct.pack(kind, value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)
