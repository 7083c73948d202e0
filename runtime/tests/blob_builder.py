"""Put blobs together from strings of bits, truthful or not: docs/format.md, sections 2 to 5, without the runtime."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from reference_decoder import crc32c

RAW, EG, RL, BM = 0, 1, 2, 3
FLOAT32, UINT8, FLOAT16, FLOAT64, BFLOAT16 = 1, 2, 10, 11, 16


def bits(text: str) -> bytes:
    """The bytes of a string of bits; zeros fill the last one."""
    text = text.replace(" ", "")
    text += "0" * (-len(text) % 8)
    return bytes(int(text[place : place + 8], 2) for place in range(0, len(text), 8))


def eg(x: int, k: int) -> str:
    """One codeword: x + 2^k in binary after m-1-k zeros."""
    binary = format(x + 2**k, "b")
    return "0" * (len(binary) - 1 - k) + binary


def rice(x: int, k: int) -> str:
    """One codeword of family 1: floor(x / 2^k) zeros, a one and the low k bits, or from 16 zeros on an escape."""
    quotient, low = divmod(x, 2**k)
    if quotient >= 16:
        return "0" * 16 + eg(x - 16 * 2**k, k)
    return "0" * quotient + "1" + format(low, f"0{k}b")[: k or None] * (k > 0)


def codebook_bits(levels: list[int], k: int) -> str:
    """Section 4: what a codebook holds."""
    text, before = "", 0
    for level in levels:
        z = 2 * abs(level) - (level > 0)
        d = z - before
        text += eg(2 * d - 1 if d > 0 else -2 * d, k)
        before = z
    return text


@dataclass(frozen=True)
class Block:
    """parts: the bits of its streams (RAW: its bytes); coded: n of RL; bitmap: of BM, as bytes or as bits in the order
    of the weights. counts and crc are lies, if given."""

    parts: tuple[str | bytes, ...] = ()
    coded: int | None = None
    bitmap: str | bytes = b""
    counts: tuple[int, ...] | None = None
    crc: int | None = None

    def data(self) -> list[bytes]:
        return [part if isinstance(part, bytes) else bits(part) for part in self.parts]

    def whole(self) -> bytes:
        bitmap = self.bitmap
        if isinstance(bitmap, str):
            bitmap = bytes(int(f"{byte:08b}"[::-1], 2) for byte in bits(bitmap))
        return bitmap + b"".join(self.data())


@dataclass(frozen=True)
class Blob:
    """A blob, field by field. None stands for the true value; a given value is put in even if it is a lie."""

    layout: int = EG
    dtype: int = FLOAT32
    dims: tuple[int, ...] = (2, 3)
    blocks: tuple[Block, ...] = ()
    block_rows: int = 2
    block_cols: int = 3
    step: float | bytes = 0.5
    symbols: int = 3
    codebook: str = "1 010 010"  # the levels 0, +1, -1
    level_code: int = 0
    run_code: int = 0
    codebook_code: int = 0
    index_width: int = 2
    magic: bytes = b"BSXB"
    version: int = 0
    pairs: int = 0
    reserved: bytes = bytes(2)
    ndim: int | None = None
    codebook_bytes: int | None = None
    payload_bytes: int | None = None
    head_crc_xor: int = 0
    padding: bytes | None = None
    keep: int | None = None
    tail: bytes = b""

    def build(self) -> bytes:
        codebook = bits(self.codebook)
        payload = b"".join(block.whole() for block in self.blocks)
        step = self.step if isinstance(self.step, bytes) else struct.pack("<f", self.step)
        head = struct.pack("<4sHBB", self.magic, self.version, self.layout, self.dtype)
        head += bytes([len(self.dims) if self.ndim is None else self.ndim])
        head += bytes([self.level_code, self.run_code, self.codebook_code]) + step
        head += struct.pack("<III", self.symbols, self.block_rows, self.block_cols)
        head += struct.pack("<I", len(codebook) if self.codebook_bytes is None else self.codebook_bytes)
        head += struct.pack("<Q", len(payload) if self.payload_bytes is None else self.payload_bytes)
        head += bytes(4) + bytes([self.index_width, self.pairs]) + self.reserved
        head += struct.pack(f"<{len(self.dims)}Q", *self.dims) + codebook
        head += b"".join(self.entry(block) for block in self.blocks)
        head += bytes(-len(head) % 64) if self.padding is None else self.padding
        crc = crc32c(head) ^ self.head_crc_xor
        whole = head[:40] + struct.pack("<I", crc) + head[44:] + payload
        return whole[: self.keep] + self.tail

    def entry(self, block: Block) -> bytes:
        data = block.data()
        counts = block.counts or (*map(len, data), *([] if block.coded is None else [block.coded]))
        letter = {2: "H", 4: "I"}.get(self.index_width, "H")
        crc = crc32c(block.whole()) if block.crc is None else block.crc
        return struct.pack(f"<{len(counts)}{letter}I", *counts, crc)
