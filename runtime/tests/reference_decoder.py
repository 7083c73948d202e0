"""A second reader of docs/format.md, in its order and in plain Python: the oracle that the backends are held against.

It imports nothing of the runtime, knows no table and no shortcut, and is meant to be read beside the page.
"""

from __future__ import annotations

import math
import struct

ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2}
ITEM_BYTES |= {17: 1, 18: 1, 19: 1, 20: 1}
RAW, EG, RL, BM = 0, 1, 2, 3
FLOAT32, INT8, INT16, INT32, FLOAT16, FLOAT64, BFLOAT16 = 1, 3, 5, 6, 10, 11, 16
FLOATS = (FLOAT32, FLOAT16, FLOAT64, BFLOAT16)


class RefusedError(Exception):
    """The blob breaks a rule of section 9; args[0] is the status."""


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


class Decoded:
    """The tensor of a blob. codebook: level of each symbol; levels: None for RAW; data: the weights' bytes in dtype."""

    def __init__(self, blob: bytes) -> None:
        """Sections 2 to 6, checked in the order of section 9. Raises RefusedError."""
        self.blob = blob
        self.read_fields()
        self.read_shape()
        index = self.read_rest_of_head()
        self.levels: list[int] | None = None if self.layout == RAW else []
        self.data, place = b"", self.head_bytes
        for size, counts, crc, length in index:
            block = blob[place : place + length]
            place += length
            require(crc32c(block) == crc, 15)
            if self.levels is None:
                self.data += block
                continue
            found = self.read_block(block, size, counts)
            require(max(found) < self.symbols, 16)
            self.levels += [self.codebook[symbol] for symbol in found]
            self.data += b"".join(weight(self.codebook[symbol], self.step, self.dtype) for symbol in found)

    def read_fields(self) -> None:
        """Section 2, the first 48 bytes."""
        require(len(self.blob) >= 48, 1)
        magic, version, self.layout, self.dtype, self.ndim = struct.unpack("<4sHBBB", self.blob[:9])
        self.level_code, self.run_code, self.codebook_code, self.step = struct.unpack("<BBBf", self.blob[9:16])
        self.symbols, self.block_rows, self.block_cols, self.codebook_bytes = struct.unpack("<4I", self.blob[16:32])
        self.payload_bytes, self.head_crc, self.width, self.pairs = struct.unpack("<QIBB", self.blob[32:46])
        raw = self.layout == RAW
        require(magic == b"BSXB", 3)
        require(version == 0, 4)
        require(self.layout in (RAW, EG, RL, BM), 5)
        require(self.dtype in (ITEM_BYTES if raw else FLOATS), 6)
        require(1 <= self.ndim <= 8, 7)
        require(self.level_code < (1 if raw else 32) and self.codebook_code < (1 if raw else 16), 9)
        require(self.run_code < (32 if self.layout == RL else 1) and self.width in (2, 4), 9)
        require(self.pairs in ((0, 1) if self.layout in (RL, BM) else (0,)), 9)
        require(self.blob[12:16] == bytes(4) if raw else 0 < self.step < math.inf, 10)
        least, most = (3, 65) if self.pairs else (1, 65536)
        require(self.symbols == self.codebook_bytes == 0 if raw else least <= self.symbols <= most, 13)
        require(self.blob[46:48] == bytes(2), 11)

    def read_shape(self) -> None:
        """Section 2, the dims; section 5, the sizes of the blocks."""
        self.codebook_start = 48 + 8 * self.ndim
        require(len(self.blob) >= self.codebook_start, 1)
        self.shape = struct.unpack(f"<{self.ndim}Q", self.blob[48 : self.codebook_start])
        require(min(self.shape) >= 1 and math.prod(self.shape) <= 2**40, 7)
        self.rows, self.cols = self.shape[0], math.prod(self.shape[1:])
        require(1 <= self.block_rows <= self.rows and 1 <= self.block_cols <= self.cols, 8)
        require(
            (self.block_cols == self.cols or self.block_rows == 1) and self.block_rows * self.block_cols <= 65536, 8
        )

    def read_rest_of_head(self) -> list[tuple[int, list[int], int, int]]:
        """Sections 4 and 5: the codebook, and for each block its weights, counts, CRC and bytes."""
        entry = struct.Struct("<" + {2: "H", 4: "I"}[self.width] * (3 if self.layout == RL else 1) + "I")
        blocks = math.ceil(self.rows / self.block_rows) * math.ceil(self.cols / self.block_cols)
        start = self.codebook_start + self.codebook_bytes
        end = start + blocks * entry.size
        self.head_bytes = math.ceil(end / 64) * 64
        require(len(self.blob) >= self.head_bytes, 1)
        require(crc32c(self.blob[:40] + bytes(4) + self.blob[44 : self.head_bytes]) == self.head_crc, 12)
        require(self.blob[end : self.head_bytes] == bytes(self.head_bytes - end), 11)
        if self.layout != RAW:
            self.read_codebook(Bits(self.blob[self.codebook_start : start], 13))
        index = []
        for place, (*counts, crc) in enumerate(entry.iter_unpack(self.blob[start:end])):
            row, col = divmod(place, math.ceil(self.cols / self.block_cols))
            height = min(self.block_rows, self.rows - row * self.block_rows)
            size = height * min(self.block_cols, self.cols - col * self.block_cols)
            index.append((size, counts, crc, sum(counts[:2]) + (math.ceil(size / 8) if self.layout == BM else 0)))
        require(sum(length for *_, length in index) == self.payload_bytes, 14)
        require(all(self.counts_possible(size, counts) for size, counts, _, _ in index), 14)
        require(len(self.blob) >= self.head_bytes + self.payload_bytes, 1)
        require(len(self.blob) <= self.head_bytes + self.payload_bytes, 2)
        return index

    def counts_possible(self, size: int, counts: list[int]) -> bool:
        """Section 9, BAD_INDEX: no codeword of order k is shorter than k + 1 bits."""
        if self.layout == RAW:
            return counts[0] == size * ITEM_BYTES[self.dtype]
        if self.layout == BM:
            return True
        run_bytes, level_bytes, coded = counts if self.layout == RL else (size, counts[0], size)
        values = math.ceil(coded / 2) if self.pairs else coded
        run_bits, level_bits = coded * (self.run_code % 16 + 1), values * (self.level_code % 16 + 1)
        empty = (run_bytes == 0) == (level_bytes == 0) == (coded == 0)
        return coded <= size and empty and 8 * run_bytes >= run_bits and 8 * level_bytes >= level_bits

    def read_codebook(self, bits: Bits) -> None:
        """Section 4; and section 6: the pairs of symbols by rank."""
        self.codebook, z = [], 0
        for _ in range(self.symbols):
            z += unfolded(bits.value(self.codebook_code))
            require(0 <= z <= 2 * 2**24, 13)
            self.codebook.append(unfolded(z))
        classes = [0]
        for _ in range(self.symbols - 1 if self.pairs else 0):
            classes.append(classes[-1] + bits.value(0))
            require(classes[-1] <= 63, 13)
        bits.finish()
        both = range(1, len(classes))
        self.ranked = sorted(((a, b) for a in both for b in both), key=lambda ab: (classes[ab[0]] + classes[ab[1]], ab))

    def read_block(self, block: bytes, size: int, counts: list[int]) -> list[int]:
        """Section 6: a block's symbols."""
        if self.layout == EG:
            return read_values(block, size, self.level_code)
        if self.layout == RL:
            coded = self.read_coded(block[counts[0] :], counts[2])
            found: list[int] = []
            for run, symbol in zip(read_values(block[: counts[0]], counts[2], self.run_code), coded, strict=True):
                require(len(found) + run < size, 16)
                found += [0] * run + [symbol]
            return found + [0] * (size - len(found))
        bitmap = math.ceil(size / 8)
        ones = [byte >> place & 1 for byte in block[:bitmap] for place in range(8)]
        require(not any(ones[size:]), 16)
        symbols = iter(self.read_coded(block[bitmap:], sum(ones)))
        return [next(symbols) if one else 0 for one in ones[:size]]

    def read_coded(self, data: bytes, count: int) -> list[int]:
        """Section 6: the symbols of a level stream, none of them 0."""
        if not self.pairs:
            return [value + 1 for value in read_values(data, count, self.level_code)]
        ranks = read_values(data, math.ceil(count / 2), self.level_code)
        require(all(rank < len(self.ranked) for rank in ranks), 16)
        symbols = [symbol for rank in ranks for symbol in self.ranked[rank]]
        require(symbols[count:] in ([], [1]), 16)
        return symbols[:count]

    def as_type(self, dtype: int) -> bytes:
        """Section 6: the weights in another type, or the levels."""
        if self.levels is None or dtype == self.dtype:
            require(dtype == self.dtype, 17)
            return self.data
        if dtype in FLOATS:
            return b"".join(weight(level, self.step, dtype) for level in self.levels)
        require(dtype in (INT8, INT16, INT32), 17)
        half = 2 ** (8 * ITEM_BYTES[dtype] - 1)
        require(all(-half <= level < half for level in self.codebook), 17)
        return b"".join(level.to_bytes(ITEM_BYTES[dtype], "little", signed=True) for level in self.levels)


class Bits:
    """Section 3: a bitstream, read from the most significant bit of its first byte on."""

    def __init__(self, data: bytes, status: int) -> None:
        self.bits, self.place, self.status = "".join(format(byte, "08b") for byte in data), 0, status

    def take(self, count: int) -> str:
        require(self.place + count <= len(self.bits), self.status)
        self.place += count
        return self.bits[self.place - count : self.place]

    def value(self, code: int) -> int:
        """One codeword."""
        family, k = divmod(code, 16)
        zeros = 0
        while not (family == 1 and zeros == 16) and self.take(1) == "0":
            zeros += 1
        if family == 0:
            return int("1" + self.take(zeros + k), 2) - 2**k
        return zeros * 2**k + (int("0" + self.take(k), 2) if zeros < 16 else self.value(k))

    def finish(self) -> None:
        require(len(self.bits) - self.place < 8 and "1" not in self.bits[self.place :], self.status)


def read_values(data: bytes, count: int, code: int) -> list[int]:
    """Section 3: a whole bitstream."""
    bits = Bits(data, 16)
    values = [bits.value(code) for _ in range(count)]
    bits.finish()
    return values


def unfolded(z: int) -> int:
    """Section 4: 0, 1, 2, 3, 4 ... -> 0, +1, -1, +2, -2 ..."""
    return (z + 1) // 2 if z % 2 else -(z // 2)


def weight(level: int, step: float, dtype: int) -> bytes:
    """Section 6: one float32 product, which is exact in Python's float, then the type's own rounding."""
    value = struct.unpack("<f", packed(level * step, "<f"))[0]
    if dtype != BFLOAT16:
        return packed(value, {FLOAT32: "<f", FLOAT16: "<e", FLOAT64: "<d"}[dtype])
    kept, dropped = divmod(int.from_bytes(packed(value, "<f"), "little"), 2**16)
    return struct.pack("<H", kept + (dropped > 0x8000 or (dropped == 0x8000 and kept % 2 == 1)))


def packed(value: float, kind: str) -> bytes:
    """To the nearest, ties to even; infinity beyond the largest."""
    try:
        return struct.pack(kind, value)
    except OverflowError:
        return struct.pack(kind, math.copysign(math.inf, value))
