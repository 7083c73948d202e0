"""Blobs that every reader must decode: bits and expected numbers are written out by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blob_builder import BFLOAT16, FLOAT16, FLOAT64, RAW, RL, UINT8, Blob, Block, codebook_bits, eg
from reference_decoder import ITEM_BYTES


@dataclass(frozen=True)
class Valid:
    """A blob and what it holds: its levels (None for RAW), and its weights' bytes."""

    blob: Blob
    levels: Sequence[int] | None
    data: bytes


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
WORKED_LEVELS = (0, 0, 0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 2, 0, 1)

SYMBOLS_0_TO_5 = {
    0: "1 010 011 00100 00101 00110",
    1: "10 11 0100 0101 0110 0111",
    2: "100 101 110 111 01000 01001",
    3: "1000 1001 1010 1011 1100 1101",
    4: "10000 10001 10010 10011 10100 10101",
    5: "100000 100001 100010 100011 100100 100101",
    15: "1000000000000000 1000000000000001 1000000000000010 1000000000000011 1000000000000100 1000000000000101",
}
"""The paper's table 2, and order 15."""


def vectors() -> Iterator[tuple[str, Valid]]:
    """Every valid vector and its name."""
    yield "worked_example", Valid(WORKED_EXAMPLE, WORKED_LEVELS, floats(WORKED_LEVELS, 0.25))
    yield from _eg()
    yield from _geometry()
    yield from _extremes()
    yield from _rl()
    yield from _types()
    yield from _raw()


def floats(levels: Sequence[int], step: float, letter: str = "f") -> bytes:
    """The weights' bytes, where every product is exact."""
    return struct.pack(f"<{len(levels)}{letter}", *(level * step for level in levels))


def _halves(blob: Blob, levels: Sequence[int]) -> Valid:
    return Valid(blob, levels, floats(levels, 0.5))


def _eg() -> Iterator[tuple[str, Valid]]:
    six: dict[str, Any] = {"symbols": 6, "codebook": "1 010 010 010 010 010"}
    for k, text in SYMBOLS_0_TO_5.items():
        yield f"eg_k{k}", _halves(Blob(blocks=(Block((text,)),), level_code=k, **six), (0, 1, -1, 2, -2, 3))
    one = Blob(dims=(1,), block_rows=1, block_cols=1, symbols=1, codebook="010", blocks=(Block(("1",)),))
    yield "eg_one_element", _halves(one, (1,))
    equal = replace(one, dims=(9,), block_rows=9, codebook="000 1100", blocks=(Block(("111111111",)),))
    yield "eg_all_equal", _halves(equal, (-3,) * 9)
    unsorted = Blob(
        dims=(2, 2),
        block_cols=2,
        symbols=4,
        codebook="101 110 101 101",  # s is 1, 2, 1, 1, so z is 1, 0, 1, 2
        codebook_code=2,
        blocks=(Block(("1 010 011 00100",)),),
    )
    yield "eg_codebook_unsorted_and_twice", _halves(unsorted, (1, 0, 1, -1))


def _geometry() -> Iterator[tuple[str, Valid]]:
    blocks = (Block(("1 010 011 1",)), Block(("1111",)), Block(("010 011",)))
    short = Blob(dims=(5, 2), block_cols=2, blocks=blocks)
    levels = (0, 1, -1, 0, 0, 0, 0, 0, 1, -1)
    yield "eg_last_block_short", _halves(short, levels)
    yield "eg_index_width_4", _halves(replace(short, index_width=4), levels)
    blocks = tuple(Block((text,)) for text in ("1111", "010 1 1 1", "011 1", "1111", "1111", "1 010"))
    pieces = Blob(dims=(2, 10), block_rows=1, block_cols=4, blocks=blocks)
    yield "eg_row_in_pieces", _halves(pieces, (0, 0, 0, 0, 1, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1))
    deep = Blob(dims=(1, 2, 1, 2, 1, 1, 1, 2), block_rows=1, block_cols=8, blocks=(Block(("1 010 011 11111",)),))
    yield "eg_8_dims", _halves(deep, (0, 1, -1, 0, 0, 0, 0, 0))


def _extremes() -> Iterator[tuple[str, Valid]]:
    largest = Blob(
        dims=(3,),
        block_rows=3,
        block_cols=1,
        symbols=65536,
        codebook="10" + "11" * 65535,  # 0, +1, -1 ... -32767, +32768
        codebook_code=1,
        blocks=(Block(("1 0000000000000000 1 0000000000000000 010",)),),
    )
    yield "eg_longest_codeword", _halves(largest, (0, 32768, 1))
    at_15 = "1000000000000000 0 1 0111111111111111 1000000000000001"
    yield "eg_k15_largest_symbol", _halves(replace(largest, level_code=15, blocks=(Block((at_15,)),)), (0, 32768, 1))
    wide = (-(2**24), 0, 2**24)
    # s is 2^26 - 1, 2^26 and 2^26 - 3: codewords of 53, 53 and 51 bits.
    codebook = f"{'0' * 26} 1{'0' * 26}  {'0' * 26} 1{'0' * 25}1  {'0' * 25} 1{'1' * 24}0"
    blob = Blob(dims=(3,), block_rows=3, block_cols=1, codebook=codebook, blocks=(Block(("1 010 011",)),))
    yield "eg_widest_levels", _halves(blob, wide)
    tiny = Blob(step=bytes([1, 0, 0, 0]), blocks=(Block(("1 010 011 111",)),))  # 2^-149
    yield "eg_smallest_step", Valid(tiny, (0, 1, -1, 0, 0, 0), bytes.fromhex("00000000 01000000 01000080" + "00" * 12))
    run = Blob(
        layout=RL,
        dims=(65536,),
        block_rows=65536,
        block_cols=1,
        symbols=2,
        codebook="1 010",
        blocks=(Block(("0000000000000000 1 0000000000000000", "1"), coded=1),),
    )
    yield "rl_longest_run", _halves(run, (0,) * 65535 + (1,))


def _rl() -> Iterator[tuple[str, Valid]]:
    empty = Block(("", ""), coded=0)
    zeros = Blob(layout=RL, dims=(4, 5), block_cols=5, symbols=1, codebook="1", blocks=(empty, empty))
    yield "rl_all_zero", _halves(zeros, (0,) * 20)
    some = Blob(
        layout=RL,
        dims=(3, 4),
        block_rows=1,
        block_cols=4,
        blocks=(Block(("1", "1"), coded=1), empty, Block(("00100", "010"), coded=1)),
    )
    yield "rl_empty_block", _halves(some, (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1))
    yield "rl_index_width_4", _halves(replace(some, index_width=4), (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1))
    full = Blob(layout=RL, blocks=(Block(("111111", "1 010 1 1 010 1"), coded=6),))
    yield "rl_no_zeros", _halves(full, (1, -1, 1, 1, -1, 1))
    orders = Blob(
        layout=RL,
        dims=(2, 8),
        block_cols=8,
        run_code=2,
        level_code=3,
        blocks=(Block(("01001 100 01000", "1000 1001 1000"), coded=3),),
    )
    yield "rl_orders_2_and_3", _halves(orders, (0, 0, 0, 0, 0, 1, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0))
    five = Blob(
        layout=RL,
        symbols=2,
        codebook="0000 10010 0000 10011",
        blocks=(Block(("00101", "1"), coded=1),),
    )
    yield "rl_most_frequent_is_5", _halves(five, (5, 5, 5, 5, 0, 5))
    for name, dtype, weights in (
        ("float16", FLOAT16, {0: "0000", 1: "0034", -1: "00b4", 2: "0038"}),
        ("bfloat16", BFLOAT16, {0: "0000", 1: "803e", -1: "80be", 2: "003f"}),
        ("float64", FLOAT64, {0: "00" * 8, 1: "000000000000d03f", -1: "000000000000d0bf", 2: "000000000000e03f"}),
    ):
        data = bytes.fromhex("".join(weights[level] for level in WORKED_LEVELS))
        yield f"rl_{name}", Valid(replace(WORKED_EXAMPLE, dtype=dtype), WORKED_LEVELS, data)


def _types() -> Iterator[tuple[str, Valid]]:
    huge = 2.0**112
    for name, dtype, step, levels, weights in (
        ("float16_rounding", FLOAT16, 1.0, (2049, 2051, 65519, 65520, -65520), "0068 0268 ff7b 007c 00fc"),
        ("float16_subnormal", FLOAT16, 2.0**-25, (1, 3, -1), "0000 0200 0080"),
        ("bfloat16_rounding", BFLOAT16, 1.0, (257, 259, -257, 258), "8043 8243 80c3 8143"),
        ("bfloat16_overflow", BFLOAT16, huge, (65407, 65408, -65408), "7f7f 807f 80ff"),
        ("float32_overflow", 1, huge, (65535, 65536, -65536), "00ff7f7f 0000807f 000080ff"),
        ("float32_product", 1, bytes.fromhex("cdcccc3d"), (3, 1, -3), "9a99993e cdcccc3d 9a9999be"),
        (
            "float64_from_float32_product",
            FLOAT64,
            bytes.fromhex("cdcccc3d"),
            (3, 1, -3),
            "000000403333d33f 000000a09999b93f 000000403333d3bf",
        ),
    ):
        blob = Blob(
            dtype=dtype,
            step=step,
            dims=(len(levels),),
            block_rows=len(levels),
            block_cols=1,
            symbols=len(levels),
            codebook=codebook_bits(list(levels), 0),
            blocks=(Block(("".join(eg(symbol, 0) for symbol in range(len(levels))),)),),
        )
        yield f"eg_{name}", Valid(blob, levels, bytes.fromhex(weights))


def _raw() -> Iterator[tuple[str, Valid]]:
    raw = Blob(layout=RAW, step=bytes(4), symbols=0, codebook="")
    for dtype, size in ITEM_BYTES.items():
        data = bytes([1, 0]) if dtype == 9 else bytes(range(0x40, 0x40 + 2 * size))
        blob = replace(raw, dtype=dtype, dims=(2,), block_rows=2, block_cols=1, blocks=(Block((data,)),))
        yield f"raw_dtype_{dtype}", Valid(blob, None, data)
    data = bytes(range(10))
    blocks = (Block((data[:4],)), Block((data[4:8],)), Block((data[8:],)))
    short = replace(raw, dtype=5, dims=(5,), block_cols=1, blocks=blocks, index_width=4)
    yield "raw_last_block_short", Valid(short, None, data)
    blocks = tuple(Block((data[begin:end],)) for begin, end in ((0, 2), (2, 4), (4, 5), (5, 7), (7, 9), (9, 10)))
    pieces = replace(raw, dtype=UINT8, dims=(2, 5), block_rows=1, block_cols=2, blocks=blocks)
    yield "raw_row_in_pieces", Valid(pieces, None, data)
