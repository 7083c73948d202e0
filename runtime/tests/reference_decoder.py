"""A second reader of docs/format.md, in its order and in plain Python: the oracle that the backends are held against.

It imports nothing of the runtime, knows no table and no shortcut, and is meant to be read beside the page.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2}
ITEM_BYTES |= {17: 1, 18: 1, 19: 1, 20: 1}
RAW, EG, RL = 0, 1, 2


class RefusedError(Exception):
    """The blob breaks a rule of section 9; args[0] is the status."""


@dataclass
class Decoded:
    """levels: None for RAW; data: the weights' bytes in dtype."""

    layout: int
    dtype: int
    shape: tuple[int, ...]
    levels: list[int] | None
    data: bytes


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

    def value(self, order: int) -> int:
        """One exp-Golomb codeword: m-1-k zeros, then x + 2^k in m bits."""
        zeros = 0
        while self.take(1) == "0":
            zeros += 1
        return int("1" + self.take(zeros + order), 2) - 2**order

    def finish(self) -> None:
        rest = self.bits[self.place :]
        require(len(rest) < 8 and "1" not in rest, self.status)


def decode(blob: bytes) -> Decoded:
    """Sections 2 to 6, checked in the order of section 9."""
    require(len(blob) >= 48, 1)
    magic, version, layout, dtype, ndim = struct.unpack("<4sHBBB", blob[:9])
    level_code, run_code, codebook_code = blob[9:12]
    step_bits, symbols, block_rows, block_cols, codebook_bytes = struct.unpack("<5I", blob[12:32])
    payload_bytes, head_crc, width = struct.unpack("<QIB", blob[32:45])
    require(magic == b"BSXB", 3)
    require(version == 0, 4)
    require(layout in (RAW, EG, RL), 5)
    require(dtype in (ITEM_BYTES if layout == RAW else (1, 10, 11, 16)), 6)
    require(1 <= ndim <= 8, 7)
    require(level_code < 16 and run_code < 16 and codebook_code < 16, 9)
    require(layout != RAW or level_code == codebook_code == 0, 9)
    require(layout == RL or run_code == 0, 9)
    require(width in (2, 4), 9)
    step = struct.unpack("<f", blob[12:16])[0]
    require(step_bits == 0 if layout == RAW else 0 < step < math.inf, 10)
    require(symbols == codebook_bytes == 0 if layout == RAW else 1 <= symbols <= 65536, 13)
    require(blob[45:48] == bytes(3), 11)

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
    codebook = read_codebook(blob[48 + 8 * ndim : index_start], symbols, codebook_code) if layout != RAW else []
    sizes = [
        min(block_rows, rows - row) * min(block_cols, cols - col)
        for row in range(0, rows, block_rows)
        for col in range(0, cols, block_cols)
    ]
    letter = {2: "H", 4: "I"}[width]
    index = list(struct.iter_unpack(f"<{counts}{letter}I", blob[index_start:index_end]))
    require(sum(sum(entry[: min(counts, 2)]) for entry in index) == payload_bytes, 14)
    for size, entry in zip(sizes, index, strict=True):
        require(layout != RAW or entry[0] == size * ITEM_BYTES[dtype], 14)
        require(layout != RL or (entry[2] <= size and len({count == 0 for count in entry[:3]}) == 1), 14)
    require(len(blob) >= head_bytes + payload_bytes, 1)
    require(len(blob) <= head_bytes + payload_bytes, 2)

    data, found, place = b"", [], head_bytes
    for size, entry in zip(sizes, index, strict=True):
        end = place + sum(entry[: min(counts, 2)])
        require(crc32c(blob[place:end]) == entry[-1], 15)
        if layout == RAW:
            data += blob[place:end]
        elif layout == EG:
            found += read_symbols(blob[place:end], size, symbols, level_code)
        else:
            middle = place + entry[0]
            streams = blob[place:middle], blob[middle:end]
            found += read_coded(*streams, entry[2], size, symbols, level_code, run_code)
        place = end
    if layout == RAW:
        return Decoded(layout, dtype, shape, None, data)
    levels = [codebook[symbol] for symbol in found]
    return Decoded(layout, dtype, shape, levels, b"".join(weight(level, step, dtype) for level in levels))


def read_codebook(data: bytes, symbols: int, order: int) -> list[int]:
    """Section 4."""
    bits = Bits(data, 13)
    levels, z = [], 0
    for _ in range(symbols):
        s = bits.value(order)
        z += (s + 1) // 2 if s % 2 else -(s // 2)
        require(z >= 0, 13)
        level = (z + 1) // 2 if z % 2 else -(z // 2)
        require(abs(level) <= 2**24, 13)
        levels.append(level)
    bits.finish()
    return levels


def read_symbols(data: bytes, size: int, symbols: int, order: int) -> list[int]:
    """Section 6, EG."""
    bits = Bits(data, 16)
    found = [bits.value(order) for _ in range(size)]
    bits.finish()
    require(max(found) < symbols, 16)
    return found


def read_coded(
    run_data: bytes, level_data: bytes, coded: int, size: int, symbols: int, level_order: int, run_order: int
) -> list[int]:
    """Section 6, RL."""
    runs, levels = Bits(run_data, 16), Bits(level_data, 16)
    found: list[int] = []
    for _ in range(coded):
        run, symbol = runs.value(run_order), levels.value(level_order) + 1
        require(len(found) + run + 1 <= size and symbol < symbols, 16)
        found += [0] * run + [symbol]
    runs.finish()
    levels.finish()
    return found + [0] * (size - len(found))


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
