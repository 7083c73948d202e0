"""Blobs that every reader must decode: bits and expected numbers are written out by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from blob_builder import BFLOAT16, BM, FLOAT16, FLOAT64, RAW, RL, UINT8, Blob, Block, codebook_bits, eg, rice
from reference_decoder import ITEM_BYTES


@dataclass(frozen=True)
class Valid:
    """A blob and what it holds: its levels (None for RAW), and its weights' bytes.

    others: the bytes in some other types, in hex; None for a type that does not hold the levels.
    """

    blob: Blob
    levels: Sequence[int] | None
    data: bytes
    others: dict[int, str | None] = field(default_factory=dict)


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

RICE_0_TO_5 = {
    0: "1 01 001 0001 00001 000001",
    1: "10 11 010 011 0010 0011",
    2: "100 101 110 111 0100 0101",
    3: SYMBOLS_0_TO_5[3],
    4: SYMBOLS_0_TO_5[4],
    15: SYMBOLS_0_TO_5[15],
}


def vectors() -> Iterator[tuple[str, Valid]]:
    """Every valid vector and its name."""
    yield "worked_example", Valid(WORKED_EXAMPLE, WORKED_LEVELS, floats(WORKED_LEVELS, 0.25))
    yield from _eg()
    yield from _geometry()
    yield from _extremes()
    yield from _rl()
    yield from _rice()
    yield from _bm()
    yield from _pairs()
    yield from _other_types()
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


def _rice() -> Iterator[tuple[str, Valid]]:
    six: dict[str, Any] = {"symbols": 6, "codebook": "1 010 010 010 010 010"}
    for k, text in RICE_0_TO_5.items():
        yield f"rice_k{k}", _halves(Blob(blocks=(Block((text,)),), level_code=16 + k, **six), (0, 1, -1, 2, -2, 3))
    many = Blob(
        dims=(5,),
        block_rows=5,
        block_cols=1,
        symbols=65536,
        codebook="10" + "11" * 65535,  # 0, +1, -1 ... -32767, +32768
        codebook_code=1,
    )
    levels = (8, -8, 0, 9, 32768)  # symbols 15, 16, 0, 17, 65535
    escape = "0" * 16
    escapes = f"{'0' * 15}1  {escape}1  1  {escape}010  {escape}000000000000000 1111111111110000"
    yield "rice_k0_escapes", _halves(replace(many, level_code=16, blocks=(Block((escapes,)),)), levels)
    at_15 = "1000000000001111 1000000000010000 1000000000000000 1000000000010001 01111111111111111"
    yield "rice_k15_largest_symbol", _halves(replace(many, level_code=31, blocks=(Block((at_15,)),)), levels)
    runs = Blob(
        layout=RL,
        dims=(65536,),
        block_rows=65536,
        block_cols=1,
        symbols=2,
        codebook="1 010",
        run_code=16,
        blocks=(Block((escape + "000000000000000 1111111111110000", "1"), coded=1),),
    )
    yield "rice_longest_run", _halves(runs, (0,) * 65535 + (1,))
    mixed = Blob(
        layout=RL,
        dims=(2, 8),
        block_cols=8,
        run_code=0x12,
        level_code=1,
        blocks=(Block(("0101 100 0100", "10 11 10"), coded=3),),
    )
    yield "rice_runs_eg_levels", _halves(mixed, (0, 0, 0, 0, 0, 1, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0))
    mixed = replace(mixed, run_code=2, level_code=0x11, blocks=(Block(("01001 100 01000", "10 11 10"), coded=3),))
    yield "eg_runs_rice_levels", _halves(mixed, (0, 0, 0, 0, 0, 1, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0))


def _bm() -> Iterator[tuple[str, Valid]]:
    two = Blob(layout=BM, dims=(2, 5), block_cols=5, blocks=(Block(("1 010 1",), bitmap=b"\x05\x02"),))
    levels = (1, 0, -1, 0, 0, 0, 0, 0, 0, 1)
    yield "bm_10_weights", _halves(two, levels)
    yield "bm_index_width_4", _halves(replace(two, index_width=4), levels)
    for k in (0, 1, 2, 15):
        text = f"{rice(0, k)} {rice(1, k)} {rice(0, k)}"
        blob = replace(two, level_code=16 + k, blocks=(Block((text,), bitmap=b"\x05\x02"),))
        yield f"bm_rice_k{k}", _halves(blob, levels)
    empty = Block(("",), bitmap=b"\0")
    zeros = Blob(layout=BM, dims=(4, 4), block_cols=4, symbols=1, codebook="1", blocks=(empty, empty))
    yield "bm_all_zero", _halves(zeros, (0,) * 16)
    full = Blob(layout=BM, dims=(8,), block_rows=8, block_cols=1, blocks=(Block(("1 010" * 4,), bitmap=b"\xff"),))
    yield "bm_no_zeros", _halves(full, (1, -1) * 4)
    one = Blob(layout=BM, dims=(1,), block_rows=1, block_cols=1, blocks=(Block(("010",), bitmap=b"\1"),))
    yield "bm_one_element", _halves(one, (-1,))
    some = Blob(
        layout=BM,
        dims=(3, 4),
        block_rows=1,
        block_cols=4,
        blocks=(Block(("1",), bitmap=b"\1"), empty, Block(("010",), bitmap=b"\x08")),
    )
    yield "bm_empty_block", _halves(some, (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1))
    blocks = tuple(Block((text,), bitmap=bitmap) for text, bitmap in (("1 1", b"\x81\0"), ("010", b"\x02")))
    short = Blob(layout=BM, dims=(1, 11), block_rows=1, block_cols=9, blocks=blocks)
    yield "bm_last_block_short", _halves(short, (1, 0, 0, 0, 0, 0, 0, 1, 0, 0, -1))
    wide = Blob(
        layout=BM,
        dims=(65536,),
        block_rows=65536,
        block_cols=1,
        symbols=2,
        codebook="1 010",
        blocks=(Block(("1" * 65536,), bitmap=b"\xff" * 8192),),
    )
    yield "bm_largest_block", _halves(wide, (1,) * 65536)
    five = Blob(layout=BM, symbols=2, codebook="0000 10010 0000 10011", blocks=(Block(("1",), bitmap=b"\x10"),))
    yield "bm_most_frequent_is_5", _halves(five, (5, 5, 5, 5, 0, 5))
    for name, dtype, weights in (
        ("float16", FLOAT16, {0: "0000", 1: "0038", -1: "00b8"}),
        ("bfloat16", BFLOAT16, {0: "0000", 1: "003f", -1: "00bf"}),
        ("float64", FLOAT64, {0: "00" * 8, 1: "000000000000e03f", -1: "000000000000e0bf"}),
    ):
        data = bytes.fromhex("".join(weights[level] for level in levels))
        yield f"bm_{name}", Valid(replace(two, dtype=dtype), levels, data)


def _pairs() -> Iterator[tuple[str, Valid]]:
    # Levels 0, 1, -1, 2; classes 0, 1, 2 of the last three. The pairs by rank: 11 | 12 21 | 13 22 31 | 23 32 | 33.
    base = Blob(
        layout=RL, dims=(1, 12), block_rows=1, block_cols=12, symbols=4, codebook="1 010 010 010  1 010 010", pairs=1
    )
    levels = (1, 1, 0, -1, -1, 0, 2, 1, 0, 1, 0, 0)  # 11 22 31 1(1): ranks 0, 4, 5, 0
    runs = "1 1 010 1 010 1 010"
    yield "rl_pairs_odd", _halves(replace(base, blocks=(Block((runs, "1 00101 00110 1"), coded=7),)), levels)
    blob = replace(
        base, run_code=16, level_code=0x11, blocks=(Block(("1 1 01 1 01 1 01", "10 0010 0011 10"), coded=7),)
    )
    yield "rl_pairs_rice", _halves(blob, levels)
    blob = replace(base, layout=BM, blocks=(Block(("1 00101 00110 1",), bitmap="110 110 110 100"),))
    yield "bm_pairs_odd", _halves(blob, levels)
    blob = replace(base, blocks=(Block(("1 1 1 1", "00111 00100"), coded=4),))  # ranks 6 and 3: 23 13
    yield "rl_pairs_even", _halves(blob, (-1, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0))
    blob = replace(base, blocks=(Block(("0001100", "1"), coded=1),))
    yield "rl_pairs_one_weight", _halves(blob, (0,) * 11 + (1,))
    everything = "".join(eg(rank, 0) for rank in range(9))
    blob = replace(base, dims=(1, 18), block_cols=18, blocks=(Block(("1" * 18, everything), coded=18),))
    by_rank = (1, 1, 1, -1, -1, 1, 1, 2, -1, -1, 2, 1, -1, 2, 2, -1, 2, 2)
    yield "rl_pairs_every_rank", _halves(blob, by_rank)
    flat = replace(blob, codebook="1 010 010 010  1 1 1")  # one class: 11 12 13 21 22 23 31 32 33
    yield "rl_pairs_one_class", _halves(flat, (1, 1, 1, -1, 1, 2, -1, 1, -1, -1, -1, 2, 2, 1, 2, -1, 2, 2))
    steep = replace(blob, codebook="1 010 010 010  1 010 00000111111")  # classes 0, 1, 63: 11 12 21 22 13 31 23 32 33
    yield "rl_pairs_largest_class", _halves(steep, (1, 1, 1, -1, -1, 1, -1, -1, 1, 2, 2, 1, -1, 2, 2, -1, 2, 2))
    first = replace(blob, codebook="1 010 010 010  010 1 010")  # classes 1, 1, 2: 11 12 21 22 13 23 31 32 33
    yield "rl_pairs_first_class_1", _halves(first, (1, 1, 1, -1, -1, 1, -1, -1, 1, 2, -1, 2, 2, 1, 2, -1, 2, 2))
    fewest = replace(base, symbols=3, codebook="1 010 010  1 010", blocks=(Block(("1 1", "00100"), coded=2),))
    yield "rl_pairs_fewest_symbols", _halves(fewest, (-1, -1) + (0,) * 10)
    codebook = "1" + "010" * 64 + "1" + "010" * 63  # 0, +1 ... -32; classes 0 to 63, so that (64, 64) is rank 4095
    most = replace(base, symbols=65, codebook=codebook, blocks=(Block(("1 1 1", eg(4095, 0) + "1"), coded=3),))
    yield "rl_pairs_most_symbols", _halves(most, (-32, -32, 1) + (0,) * 9)
    empty = Block(("", ""), coded=0)
    yield "rl_pairs_empty_block", _halves(replace(base, blocks=(empty,)), (0,) * 12)


def _other_types() -> Iterator[tuple[str, Valid]]:
    """The levels 0, 1, -1, 3, -128, 127 at step 0.1 in every type that a reader may offer."""
    levels = (0, 1, -1, 3, -128, 127)
    blob = Blob(
        symbols=6,
        step=bytes.fromhex("cdcccc3d"),
        codebook=codebook_bits(list(levels), 0),
        blocks=(Block(("".join(eg(symbol, 0) for symbol in range(6)),)),),
    )
    float32 = "00000000 cdcccc3d cdccccbd 9a99993e cdcc4cc1 33334b41"
    others: dict[int, str | None] = {
        1: float32,
        10: "0000 662e 66ae cd34 66ca 5a4a",
        11: "0000000000000000 000000a09999b93f 000000a09999b9bf 000000403333d33f 000000a0999929c0 0000006066662940",
        16: "0000 cd3d cdbd 9a3e 4dc1 4b41",
        3: "00 01 ff 03 80 7f",
        5: "0000 0100 ffff 0300 80ff 7f00",
        6: "00000000 01000000 ffffffff 03000000 80ffffff 7f000000",
    }
    yield "types_of_eg", Valid(blob, levels, bytes.fromhex(float32), others)
    runs = replace(blob, layout=RL, blocks=(Block(("010 1 1 1 1", "".join(eg(x, 0) for x in range(5))), coded=5),))
    yield "types_of_rl", Valid(runs, levels, bytes.fromhex(float32), others)
    bitmap = replace(blob, layout=BM, blocks=(Block(("".join(eg(x, 0) for x in range(5)),), bitmap=b"\x3e"),))
    yield "types_of_bm", Valid(bitmap, levels, bytes.fromhex(float32), others)
    pairs = replace(
        bitmap,
        pairs=1,
        codebook=blob.codebook + "1" * 5,
        blocks=(Block(("".join(eg(x, 0) for x in (1, 13, 20)),), bitmap=b"\x3e"),),
    )
    yield "types_of_pairs", Valid(pairs, levels, bytes.fromhex(float32), others)
    for name, wide, held in (("128", 128, "8000"), ("minus_129", -129, "7fff")):
        blob = Blob(
            dims=(1,),
            block_rows=1,
            block_cols=1,
            step=1.0,
            symbols=1,
            codebook=eg(2 * abs(2 * abs(wide) - (wide > 0)) - 1, 0),
            blocks=(Block(("1",)),),
        )
        yield f"types_level_{name}", Valid(blob, (wide,), floats((wide,), 1.0), {3: None, 5: held})
    for name, wide in (("32768", 32768), ("minus_32769", -32769)):
        held32 = struct.pack("<i", wide).hex()
        blob = replace(blob, codebook=eg(2 * (2 * abs(wide) - (wide > 0)) - 1, 0))
        yield f"types_level_{name}", Valid(blob, (wide,), floats((wide,), 1.0), {3: None, 5: None, 6: held32})
    # What the codebook has counts, even if no weight has it.
    unused = replace(blob, symbols=2, codebook=codebook_bits([1, 200], 0))
    yield "types_unused_level", Valid(unused, (1,), floats((1,), 1.0), {3: None, 5: "0100"})


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
