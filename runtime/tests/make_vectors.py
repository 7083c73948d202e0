"""Write the conformance vectors of docs/format.md: `python runtime/tests/make_vectors.py`.

The bits are written out here or follow from the page's formula; nothing of the runtime is used. vectors/valid/*.bsxb are
blobs that every reader must decode to what vectors/valid/expected.json says; each of vectors/invalid/*.bsxb breaks one rule of
section 9, and vectors/invalid/expected.json says which status, and which block, every reader must report.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from reference_decoder import crc32c

VECTORS = Path(__file__).with_name("vectors")
RAW, EG, RL = 0, 1, 2
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


@dataclass(frozen=True)
class Block:
    """parts: the bits of its streams (RAW: its bytes); coded: n of RL. counts and crc are lies, if given."""

    parts: tuple[str | bytes, ...] = ()
    coded: int | None = None
    counts: tuple[int, ...] | None = None
    crc: int | None = None

    def data(self) -> list[bytes]:
        return [part if isinstance(part, bytes) else bits(part) for part in self.parts]


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
    reserved: bytes = bytes(3)
    ndim: int | None = None
    codebook_bytes: int | None = None
    payload_bytes: int | None = None
    head_crc_xor: int = 0
    padding: bytes | None = None
    keep: int | None = None
    tail: bytes = b""

    def build(self) -> bytes:
        codebook = bits(self.codebook)
        payload = b"".join(b"".join(block.data()) for block in self.blocks)
        step = self.step if isinstance(self.step, bytes) else struct.pack("<f", self.step)
        head = struct.pack("<4sHBB", self.magic, self.version, self.layout, self.dtype)
        head += bytes([len(self.dims) if self.ndim is None else self.ndim])
        head += bytes([self.level_code, self.run_code, self.codebook_code]) + step
        head += struct.pack("<III", self.symbols, self.block_rows, self.block_cols)
        head += struct.pack("<I", len(codebook) if self.codebook_bytes is None else self.codebook_bytes)
        head += struct.pack("<Q", len(payload) if self.payload_bytes is None else self.payload_bytes)
        head += bytes(4) + bytes([self.index_width]) + self.reserved
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
        crc = crc32c(b"".join(data)) if block.crc is None else block.crc
        return struct.pack(f"<{len(counts)}{letter}I", *counts, crc)


@dataclass(frozen=True)
class Valid:
    """A blob and what it holds: levels as [level, how often in a row] (None for RAW), and the weights' bytes."""

    blob: Blob
    levels: list[tuple[int, int]] | None
    data: bytes


@dataclass(frozen=True)
class Invalid:
    blob: Blob
    status: str
    block: int | None = field(default=None)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def one_by_one(levels: list[int]) -> list[tuple[int, int]]:
    return [(level, 1) for level in levels]


def eg_block(text: str) -> tuple[Block, ...]:
    return (Block((text,)),)


WORKED_EXAMPLE = Blob(
    layout=RL,
    dims=(3, 5),
    block_rows=3,
    block_cols=5,
    step=0.25,
    symbols=4,
    codebook="10 11 11 11",
    codebook_code=1,
    run_code=1,
    blocks=(Block(("0101 0100 0111 11", "1 010 011 1"), coded=4),),
)
SIX_LEVELS = {"symbols": 6, "codebook": "1 010 010 010 010 010"}  # 0, +1, -1, +2, -2, +3
TABLE_2 = {
    0: "1 010 011 00100 00101 00110",
    1: "10 11 0100 0101 0110 0111",
    2: "100 101 110 111 01000 01001",
    3: "1000 1001 1010 1011 1100 1101",
    4: "10000 10001 10010 10011 10100 10101",
    5: "100000 100001 100010 100011 100100 100101",
    15: "1000000000000000 1000000000000001 1000000000000010 1000000000000011 1000000000000100 1000000000000101",
}
RAW_FIELDS = {"layout": RAW, "step": bytes(4), "symbols": 0, "codebook": ""}


def valid_eg() -> Iterator[tuple[str, Valid]]:
    sixes = [0, 1, -1, 2, -2, 3]
    for k, text in TABLE_2.items():
        blob = Blob(blocks=eg_block(text), level_code=k, **SIX_LEVELS)
        yield f"eg_k{k}", Valid(blob, one_by_one(sixes), floats(0, 0.5, -0.5, 1, -1, 1.5))
    one = Blob(dims=(1,), block_rows=1, block_cols=1, symbols=1, codebook="010", blocks=eg_block("1"))
    yield "eg_one_element", Valid(one, [(1, 1)], floats(0.5))
    same = replace(one, dims=(9,), block_rows=9, codebook="0001110", blocks=eg_block("111111111"))
    yield "eg_all_equal", Valid(same, [(7 // 2, 9)] if False else [(-3, 9)], floats(*[-1.5] * 9))
    rows = Blob(dims=(5, 2), block_cols=2, blocks=(Block(("1 010 011 1",)), Block(("1111",)), Block(("010 011",))))
    levels = [0, 1, -1, 0, 0, 0, 0, 0, 1, -1]
    yield "eg_last_block_short", Valid(rows, one_by_one(levels), floats(*(level / 2 for level in levels)))
    yield "eg_index_width_4", Valid(
        replace(rows, index_width=4), one_by_one(levels), floats(*(level / 2 for level in levels))
    )
    pieces = tuple(Block((text,)) for text in ("1111", "010 1 1 1", "011 1", "1111", "1111", "1 010"))
    cut = Blob(dims=(2, 10), block_rows=1, block_cols=4, blocks=pieces)
    levels = [0, 0, 0, 0, 1, 0, 0, 0, -1, 0] + [0] * 9 + [1]
    yield "eg_row_in_pieces", Valid(cut, one_by_one(levels), floats(*(level / 2 for level in levels)))
    deep = Blob(dims=(1, 2, 1, 2, 1, 1, 1, 2), block_rows=1, block_cols=8, blocks=eg_block("1 010 011 11111"))
    yield "eg_8_dims", Valid(deep, one_by_one([0, 1, -1, 0, 0, 0, 0, 0]), floats(0, 0.5, -0.5, 0, 0, 0, 0, 0))


def valid_extremes() -> Iterator[tuple[str, Valid]]:
    many = {"symbols": 65536, "codebook": "10" + "11" * 65535, "codebook_code": 1}
    longest = Blob(dims=(3,), block_rows=3, block_cols=1, step=1.0, **many)
    text = "1 0000000000000000 1 0000000000000000 010"
    yield "eg_longest_codeword", Valid(
        replace(longest, blocks=eg_block(text)), one_by_one([0, 32768, 1]), floats(0, 32768, 1)
    )
    top = "0 1 1111111111111111"
    yield "eg_k15_largest_symbol", Valid(
        replace(longest, level_code=15, blocks=eg_block(f"{eg(0, 15)} 01 0111111111111111 {eg(1, 15)}")),
        one_by_one([0, 32768 - 16384 + 0, 1]) if top == "" else one_by_one([0, -32767 + 0, 1]),
        floats(0, -32767, 1),
    )
