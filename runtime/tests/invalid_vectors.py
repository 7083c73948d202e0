"""Blobs that every reader must refuse, each for one reason: docs/format.md, section 9, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from blob_builder import BM, RAW, RL, UINT8, Blob, Block, codebook_bits, eg, rice


@dataclass(frozen=True)
class Invalid:
    """A blob, the name of the status it must be refused with, and the block that is named, if it is one block."""

    blob: Blob
    status: str
    block: int | None = None


EG_BLOB = Blob(blocks=(Block(("1 010 011 1 1 1",)),))
RL_BLOB = Blob(layout=RL, dims=(2, 8), block_cols=8, blocks=(Block(("011 00100", "1 010"), coded=2),))
RAW_BLOB = Blob(
    layout=RAW,
    dtype=UINT8,
    dims=(5,),
    block_rows=5,
    block_cols=1,
    step=bytes(4),
    symbols=0,
    codebook="",
    blocks=(Block((b"12345",)),),
)
BM_BLOB = Blob(
    layout=BM, dims=(2, 5), block_cols=5, blocks=(Block(("1 010 1",), bitmap="10100 00001"),)
)  # 1 0 -1 0 0  0 0 0 0 1
# Three symbols, so that A is 2, classes 0 and 0: the ranks of (1, 1), (1, 2), (2, 1), (2, 2) are 0, 1, 2, 3.
PAIRS_BLOB = replace(RL_BLOB, pairs=1, codebook="1 010 010 1 1", blocks=(Block(("1 1 1", "010 1"), coded=3),))
TWO_BLOCKS = Blob(dims=(4, 3), blocks=(Block(("1 010 011 1 1 1",)), Block(("1 1 1 011 010 1",))))


def vectors() -> Iterator[tuple[str, Invalid]]:
    """Every invalid vector and its name, in the order of section 9."""
    yield from _fixed()
    yield from _codes_and_numbers()
    yield from _shapes()
    yield from _head_bytes()
    yield from _codebooks()
    yield from _indexes()
    yield from _blocks_eg()
    yield from _blocks_rl()
    yield from _blocks_bm()
    yield from _blocks_pairs()
    yield from _blocks_rice()


def _fixed() -> Iterator[tuple[str, Invalid]]:
    yield "truncated_empty", Invalid(replace(EG_BLOB, keep=0), "TRUNCATED")
    yield "truncated_47_bytes", Invalid(replace(EG_BLOB, keep=47), "TRUNCATED")
    yield "magic_lower_case", Invalid(replace(EG_BLOB, magic=b"bsxb"), "BAD_MAGIC")
    yield "magic_zeros", Invalid(replace(EG_BLOB, magic=bytes(4)), "BAD_MAGIC")
    yield "version_1", Invalid(replace(EG_BLOB, version=1), "BAD_VERSION")
    yield "version_256", Invalid(replace(EG_BLOB, version=256), "BAD_VERSION")
    yield "layout_4", Invalid(replace(EG_BLOB, layout=4), "BAD_LAYOUT")
    yield "layout_255", Invalid(replace(EG_BLOB, layout=255), "BAD_LAYOUT")
    for dtype in (0, 8, 21, 255):
        yield f"dtype_raw_{dtype}", Invalid(replace(RAW_BLOB, dtype=dtype), "BAD_DTYPE")
    yield "dtype_eg_int8", Invalid(replace(EG_BLOB, dtype=3), "BAD_DTYPE")
    yield "dtype_rl_complex64", Invalid(replace(RL_BLOB, dtype=14), "BAD_DTYPE")
    yield "dtype_bm_int32", Invalid(replace(BM_BLOB, dtype=6), "BAD_DTYPE")
    yield "ndim_0", Invalid(replace(EG_BLOB, ndim=0), "BAD_SHAPE")
    yield "ndim_9", Invalid(replace(EG_BLOB, dims=(1,) * 9), "BAD_SHAPE")


def _codes_and_numbers() -> Iterator[tuple[str, Invalid]]:
    for name in ("level_code", "run_code", "codebook_code"):
        yield f"{name}_family_2", Invalid(replace(RL_BLOB, **{name: 0x20}), "BAD_CODE")
        yield f"{name}_raw", Invalid(replace(RAW_BLOB, **{name: 1}), "BAD_CODE")
    yield "codebook_code_family_1", Invalid(replace(RL_BLOB, codebook_code=0x10), "BAD_CODE")
    yield "run_code_eg", Invalid(replace(EG_BLOB, run_code=1), "BAD_CODE")
    yield "run_code_bm", Invalid(replace(BM_BLOB, run_code=0x10), "BAD_CODE")
    for width in (0, 1, 3, 8):
        yield f"index_width_{width}", Invalid(replace(EG_BLOB, index_width=width), "BAD_CODE")
    for name, blob, number in (
        ("raw", RAW_BLOB, 1),
        ("eg", EG_BLOB, 1),
        ("rl_2", RL_BLOB, 2),
        ("bm_255", BM_BLOB, 255),
    ):
        yield f"pairs_{name}", Invalid(replace(blob, pairs=number), "BAD_CODE")
    for name, step in (("0", 0.0), ("negative", -0.5), ("infinite", float("inf")), ("nan", float("nan"))):
        yield f"step_{name}", Invalid(replace(EG_BLOB, step=step), "BAD_STEP")
    yield "step_raw", Invalid(replace(RAW_BLOB, step=1.0), "BAD_STEP")
    yield "step_raw_minus_0", Invalid(replace(RAW_BLOB, step=-0.0), "BAD_STEP")
    for symbols in (0, 65537, 2**32 - 1):
        yield f"symbols_{symbols}", Invalid(replace(EG_BLOB, symbols=symbols), "BAD_CODEBOOK")
    yield "symbols_raw", Invalid(replace(RAW_BLOB, symbols=1), "BAD_CODEBOOK")
    yield "codebook_bytes_raw", Invalid(replace(RAW_BLOB, codebook="1"), "BAD_CODEBOOK")
    yield "symbols_2_in_pairs", Invalid(replace(PAIRS_BLOB, symbols=2), "BAD_CODEBOOK")
    yield "symbols_66_in_pairs", Invalid(replace(PAIRS_BLOB, symbols=66), "BAD_CODEBOOK")
    for place in range(2):
        reserved = bytes(int(byte == place) for byte in range(2))
        yield f"reserved_{place}", Invalid(replace(EG_BLOB, reserved=reserved), "BAD_RESERVED")


def _shapes() -> Iterator[tuple[str, Invalid]]:
    yield "truncated_dims", Invalid(replace(EG_BLOB, keep=63), "TRUNCATED")
    yield "dim_0", Invalid(replace(EG_BLOB, dims=(2, 0)), "BAD_SHAPE")
    yield "dim_beyond_2_40", Invalid(replace(EG_BLOB, dims=(2**40 + 1,)), "BAD_SHAPE")
    yield "dims_product_is_0_in_64_bits", Invalid(replace(EG_BLOB, dims=(2**32, 2**32)), "BAD_SHAPE")
    yield "dims_product_is_6_in_64_bits", Invalid(replace(EG_BLOB, dims=(2, 3, 2**63 + 1, 2**63 + 1)), "BAD_SHAPE")
    for name, rows, cols in (
        ("no_rows", 0, 3),
        ("no_cols", 1, 0),
        ("too_many_rows", 3, 3),
        ("too_many_cols", 1, 4),
        ("not_consecutive", 2, 2),
    ):
        yield f"blocks_{name}", Invalid(replace(EG_BLOB, block_rows=rows, block_cols=cols), "BAD_BLOCKS")
    tall = replace(EG_BLOB, dims=(65537,), block_rows=65537, block_cols=1)
    yield "blocks_65537_weights", Invalid(tall, "BAD_BLOCKS")
    wraps = replace(EG_BLOB, dims=(2**16, 2**16), block_rows=2**16, block_cols=2**16)
    yield "blocks_weights_are_0_in_32_bits", Invalid(wraps, "BAD_BLOCKS")


def _head_bytes() -> Iterator[tuple[str, Invalid]]:
    yield "truncated_codebook", Invalid(replace(EG_BLOB, keep=64), "TRUNCATED")
    yield "truncated_index", Invalid(replace(EG_BLOB, keep=68), "TRUNCATED")
    yield "truncated_padding", Invalid(replace(EG_BLOB, keep=127), "TRUNCATED")
    yield "codebook_bytes_huge", Invalid(replace(EG_BLOB, codebook_bytes=2**32 - 1), "TRUNCATED")
    yield "blocks_2_40", Invalid(replace(EG_BLOB, dims=(2**40,), block_rows=1, block_cols=1), "TRUNCATED")
    yield "head_crc", Invalid(replace(EG_BLOB, head_crc_xor=1), "HEAD_CRC")
    yield "head_crc_last_bit", Invalid(replace(EG_BLOB, head_crc_xor=0x80000000), "HEAD_CRC")
    padding = bytes(57)
    yield "padding_first", Invalid(replace(EG_BLOB, padding=b"\1" + padding[1:]), "BAD_RESERVED")
    yield "padding_last", Invalid(replace(EG_BLOB, padding=padding[1:] + b"\x80"), "BAD_RESERVED")


def _codebooks() -> Iterator[tuple[str, Invalid]]:
    wide, s_max = 2**24, 2**26
    for name, codebook in (
        ("empty", ""),
        ("one_level_short", "1 010"),
        ("cut_codeword", "1 010 0000"),
        ("cut_suffix", "1 000000 1"),
        ("padding", "1 010 010 1"),
        ("byte_after", "1 010 010 0" + "0" * 8),
        ("level_more", "1 010 010 010"),
        ("endless_zeros", "1" + "0" * 7 + "0" * 56),
        ("long_zeros", "1 010" + "0" * 64 + "1" * 65),
        ("level_above", codebook_bits([0, 1, wide + 1], 0)),
        ("level_below", codebook_bits([0, 1, -wide - 1], 0)),
        ("no_level_before_0", "1 010" + eg(4, 0)),
        ("s_too_large", "1 010" + eg(s_max + 1, 0)),
        ("s_is_0_in_32_bits", "1 010" + eg(2**32, 0)),
        ("s_is_0_in_64_bits", "1 010" + eg(2**64, 0)),
    ):
        yield f"codebook_{name}", Invalid(replace(EG_BLOB, codebook=codebook), "BAD_CODEBOOK")
    for name, classes in (
        ("none", ""),
        ("one_short", "1"),
        ("one_more", "1 1 011"),
        ("64", "1" + eg(64, 0)),
        ("32_and_32", eg(32, 0) * 2),
        ("cut", "1 0000"),
        ("is_0_in_8_bits", "1" + eg(256, 0)),
        ("is_0_in_32_bits", "1" + eg(2**32, 0)),
        ("padding", "1 1 001"),
        ("byte_after", "1 1" + "0" * 8),
    ):
        yield f"classes_{name}", Invalid(replace(PAIRS_BLOB, codebook="1 010 010" + classes), "BAD_CODEBOOK")
    yield "codebook_long_for_its_symbols", Invalid(replace(EG_BLOB, codebook="1 010 010" + "0" * 2000), "BAD_CODEBOOK")


def _indexes() -> Iterator[tuple[str, Invalid]]:
    yield "index_bytes_below_payload", Invalid(replace(EG_BLOB, payload_bytes=3), "BAD_INDEX")
    yield "index_bytes_above_payload", Invalid(replace(EG_BLOB, payload_bytes=1), "BAD_INDEX")
    yield "payload_bytes_huge", Invalid(replace(EG_BLOB, payload_bytes=2**64 - 1), "BAD_INDEX")
    raw_counts = Block((b"12345",), counts=(4,))
    yield "index_raw_short", Invalid(replace(RAW_BLOB, blocks=(raw_counts,), payload_bytes=4, tail=b""), "BAD_INDEX")
    moved = (Block((b"12",), counts=(3,)), Block((b"345",), counts=(2,)))
    yield "index_raw_moved", Invalid(replace(RAW_BLOB, dims=(6,), block_rows=3, blocks=moved), "BAD_INDEX")
    streams = RL_BLOB.blocks[0].parts
    yield "index_rl_coded_beyond_block", Invalid(replace(RL_BLOB, blocks=(Block(streams, coded=17),)), "BAD_INDEX")
    yield "index_rl_nothing_in_bytes", Invalid(replace(RL_BLOB, blocks=(Block(streams, coded=0),)), "BAD_INDEX")
    yield "index_rl_no_runs", Invalid(replace(RL_BLOB, blocks=(Block(("", "1 010"), coded=2),)), "BAD_INDEX")
    yield "index_rl_no_levels", Invalid(replace(RL_BLOB, blocks=(Block(("011 00100", ""), coded=2),)), "BAD_INDEX")
    yield "index_rl_no_bytes", Invalid(replace(RL_BLOB, blocks=(Block(("", ""), coded=2),)), "BAD_INDEX")
    yield from _least_lengths()
    wrapping = Block(streams, counts=(2**32 - 1, 3, 2))
    blob = replace(RL_BLOB, blocks=(wrapping,), index_width=4, payload_bytes=2)
    yield "index_sum_is_2_in_32_bits", Invalid(blob, "BAD_INDEX")
    yield "truncated_payload", Invalid(replace(EG_BLOB, keep=129), "TRUNCATED")
    yield "truncated_no_payload", Invalid(replace(EG_BLOB, keep=128), "TRUNCATED")
    claims = Block(EG_BLOB.blocks[0].parts, counts=(2**32 - 1,))
    blob = replace(EG_BLOB, blocks=(claims,), index_width=4, payload_bytes=2**32 - 1)
    yield "truncated_4_gib_payload", Invalid(blob, "TRUNCATED")
    yield "trailing_byte", Invalid(replace(EG_BLOB, tail=b"\0"), "TRAILING_BYTES")
    yield "trailing_64_bytes", Invalid(replace(EG_BLOB, tail=bytes(64)), "TRAILING_BYTES")


def _least_lengths() -> Iterator[tuple[str, Invalid]]:
    """Streams that are too short for their codewords, whatever they hold."""
    yield "index_eg_no_bytes", Invalid(replace(EG_BLOB, blocks=(Block(("",)),)), "BAD_INDEX")
    only = Blob(dims=(1, 1), block_rows=1, block_cols=1, symbols=1, codebook="1", blocks=(Block(("10000000",)),))
    for family, code in (("eg", 15), ("rice", 0x1F)):
        yield f"index_{family}_k15_in_a_byte", Invalid(replace(only, level_code=code), "BAD_INDEX")
    nine = Blob(dims=(9,), block_rows=9, block_cols=1, blocks=(Block(("1" * 8,)),))
    yield "index_eg_9_weights_in_a_byte", Invalid(nine, "BAD_INDEX")
    rl = replace(RL_BLOB, blocks=(Block(("1" * 8, "1" * 9), coded=9),))
    yield "index_rl_9_runs_in_a_byte", Invalid(rl, "BAD_INDEX")
    rl = replace(RL_BLOB, blocks=(Block(("1" * 9, "1" * 8), coded=9),))
    yield "index_rl_9_levels_in_a_byte", Invalid(rl, "BAD_INDEX")
    rl = replace(RL_BLOB, run_code=0x13, blocks=(Block(("1000 1000", "1 1 1"), coded=3),))
    yield "index_rl_3_rice_runs_in_a_byte", Invalid(rl, "BAD_INDEX")
    pairs = replace(PAIRS_BLOB, level_code=2, blocks=(Block(("1" * 5, "100 100 10"), coded=5),))
    yield "index_rl_3_pairs_in_a_byte", Invalid(pairs, "BAD_INDEX")
    bitmap = BM_BLOB.blocks[0]
    for name, counts in (("with_bitmap", (3,)), ("too_short", (0,))):
        yield f"index_bm_{name}", Invalid(replace(BM_BLOB, blocks=(replace(bitmap, counts=counts),)), "BAD_INDEX")


def _blocks_eg() -> Iterator[tuple[str, Invalid]]:
    good, damaged = TWO_BLOCKS.blocks[0], Block(TWO_BLOCKS.blocks[1].parts, crc=0)
    broken = Block(("1 1 1 1 1 1 1",))
    for name, blocks, status, block in (
        ("crc_first", (damaged, good), "BLOCK_CRC", 0),
        ("crc_last", (good, damaged), "BLOCK_CRC", 1),
        ("crc_before_stream", (good, replace(broken, crc=0)), "BLOCK_CRC", 1),
        ("first_bad_is_stream", (broken, damaged), "BAD_STREAM", 0),
        ("first_bad_is_crc", (damaged, broken), "BLOCK_CRC", 0),
    ):
        yield f"block_{name}", Invalid(replace(TWO_BLOCKS, blocks=blocks), status, block)
    raw = Block((b"12345",), crc=0x12345678)
    yield "block_crc_raw", Invalid(replace(RAW_BLOB, blocks=(raw,)), "BLOCK_CRC", 0)
    for name, text in (
        ("one_weight_short", "1 010 011 1"),
        ("cut_codeword", "1 1 1 1 1 001"),
        ("cut_prefix", "1 1 1 1 1 000"),
        ("zeros_only", "0" * 64),
        ("symbol_3_of_3", "1 010 00100 1 1 1"),
        ("symbol_65535", "1 1 1 1 1" + eg(65535, 0)),
        ("symbol_65536", "1 1 1 1 1" + eg(65536, 0)),
        ("symbol_is_0_in_16_bits", "1 1 1 1 1" + eg(2**17 + 2**16, 0)),
        ("symbol_is_0_in_32_bits", "1 1 1 1 1" + eg(2**32, 0)),
        ("symbol_is_0_in_64_bits", "1 1 1 1 1" + eg(2**64, 0)),
        ("padding_first", "1 010 011 1 1 1 100000"),
        ("padding_last", "1 010 011 1 1 1 000001"),
        ("byte_after", "1 010 011 1 1 1 000000" + "0" * 8),
        ("bytes_after", "1" * 6 + "0" * 2 + "1" * 240),
    ):
        yield f"stream_eg_{name}", Invalid(replace(EG_BLOB, blocks=(Block((text,)),)), "BAD_STREAM", 0)
    # Read on, the second block's first bits would complete the first block's last codeword.
    borrowing = (Block(("1 1 010 010",)), Block(("1 1 1 1 1 1",)))
    short = (Block(("1 1 1 010 1 0",)), Block(("1 010 1 1 1 1",)))
    for name, blocks in (("borrows_weight", borrowing), ("borrows_bits", short)):
        yield f"stream_eg_{name}", Invalid(replace(TWO_BLOCKS, blocks=blocks), "BAD_STREAM", 0)
    only = Blob(dims=(1, 1), block_rows=1, block_cols=1, symbols=1, codebook="1", level_code=15)
    yield "stream_eg_k15_cut", Invalid(replace(only, blocks=(Block(("01" + "0" * 14,)),)), "BAD_STREAM", 0)


def _blocks_rl() -> Iterator[tuple[str, Invalid]]:
    # 16 weights, two coded: runs 2 and 3, symbols 1 and 2 of 3.
    runs, levels = RL_BLOB.blocks[0].parts
    for name, parts in (
        ("run_beyond_block", ("011" + eg(13, 0), levels)),
        ("first_run_beyond_block", (eg(16, 0) + "1", levels)),
        ("run_65535", ("011" + eg(65535, 0), levels)),
        ("run_is_0_in_16_bits", ("011" + eg(65536, 0), levels)),
        ("run_is_0_in_32_bits", ("011" + eg(2**32, 0), levels)),
        ("level_beyond_codebook", (runs, "1 011")),
        ("level_65535", (runs, "1" + eg(65535, 0))),
        ("level_is_0_in_16_bits", (runs, "1" + eg(65536, 0))),
        ("run_cut", ("011 00000", levels)),
        ("runs_short", ("011", levels)),
        ("levels_short", (runs, "1")),
        ("run_padding", ("011 1 0001", levels)),
        ("level_padding", (runs, "1 010 0001")),
        ("run_byte_after", (runs + "0" * 8, levels)),
        ("level_byte_after", (runs, "1 010 0000" + "0" * 8)),
        ("run_borrows_level", ("00110 001", "010 1")),
    ):
        yield f"stream_rl_{name}", Invalid(replace(RL_BLOB, blocks=(Block(parts, coded=2),)), "BAD_STREAM", 0)
    full = replace(RL_BLOB, blocks=(Block(("1" * 15 + "010", "1" * 16), coded=16),))
    yield "stream_rl_full_block_and_one", Invalid(full, "BAD_STREAM", 0)
    one_symbol = replace(RL_BLOB, symbols=1, codebook="1", blocks=(Block(("1", "1"), coded=1),))
    yield "stream_rl_coded_but_one_symbol", Invalid(one_symbol, "BAD_STREAM", 0)


def _blocks_bm() -> Iterator[tuple[str, Invalid]]:
    # 10 weights, three coded, of symbols 1, 2, 1 of 3; the bitmap's last six bits are padding.
    ones, levels = "10100 00001", "1 010 1"
    for name, bitmap, text in (
        ("padding_first", ones + "1", levels),
        ("padding_last", ones + "000001", levels),
        ("padding_with_a_level", ones + "1", levels + "1"),
        ("one_level_short", ones, "1 010"),
        ("one_level_more", ones, levels + "1"),
        ("no_levels", ones, ""),
        ("levels_of_nothing", "0" * 10, "1"),
        ("zero_byte_of_nothing", "0" * 10, "0"),
        ("level_beyond_codebook", ones, "1 011 1"),
        ("level_65535", ones, "1 1" + eg(65535, 0)),
        ("level_is_0_in_16_bits", ones, "1 1" + eg(65536, 0)),
        ("level_padding", ones, "1 010 1 001"),
        ("level_byte_after", ones, levels + "0" * 11),
    ):
        blob = replace(BM_BLOB, blocks=(Block((text,), bitmap=bitmap),))
        yield f"stream_bm_{name}", Invalid(blob, "BAD_STREAM", 0)
    damaged = replace(BM_BLOB.blocks[0], crc=1)
    yield "block_crc_bm", Invalid(replace(BM_BLOB, blocks=(damaged,)), "BLOCK_CRC", 0)


def _blocks_pairs() -> Iterator[tuple[str, Invalid]]:
    for name, text, coded in (
        ("rank_4_of_4", "1 00101", 3),
        ("rank_65535", "1" + eg(65535, 0), 3),
        ("rank_is_0_in_16_bits", "1" + eg(65536, 0), 3),
        ("odd_partner_is_2", "1 010", 3),
        ("one_rank_short", "1", 4),
        ("one_rank_more", "1 1 1", 3),
        ("padding", "1 1 01", 3),
        ("byte_after", "1 1" + "0" * 8, 3),
    ):
        block = Block(("1" * coded, text), coded=coded)
        yield f"stream_rl_pairs_{name}", Invalid(replace(PAIRS_BLOB, blocks=(block,)), "BAD_STREAM", 0)
        bitmap = Block((text,), bitmap="1" * coded + "0" * (10 - coded))
        blob = replace(BM_BLOB, pairs=1, codebook=PAIRS_BLOB.codebook, blocks=(bitmap,))
        yield f"stream_bm_pairs_{name}", Invalid(blob, "BAD_STREAM", 0)


def _blocks_rice() -> Iterator[tuple[str, Invalid]]:
    blob = replace(EG_BLOB, level_code=0x10)
    for name, text in (
        ("cut_prefix", "1 1 1 1 1 000"),
        ("cut_escape", "1 1 1 1 1" + "0" * 16 + "00"),
        ("cut_escape_suffix", "1 1 1 1 1" + "0" * 16 + "000001"),
        ("symbol_3_of_3", "1 01 0001 1 1 1"),
        ("symbol_65535", "1 1 1 1 1" + rice(65535, 0)),
        ("symbol_65536", "1 1 1 1 1" + rice(65536, 0)),
        ("symbol_is_0_in_16_bits", "1 1 1 1 1" + rice(2**17, 0)),
        ("symbol_is_0_in_32_bits", "1 1 1 1 1" + rice(2**32, 0)),
        ("symbol_is_0_in_64_bits", "1 1 1 1 1" + rice(2**64, 0)),
        ("zeros_only", "0" * 64),
        ("many_zeros", "1 1 1 1 1" + "0" * 200 + "1" * 200),
        ("padding", "1 1 1 1 1 1 01"),
    ):
        yield f"stream_rice_{name}", Invalid(replace(blob, blocks=(Block((text,)),)), "BAD_STREAM", 0)
    cut = replace(blob, level_code=0x11, blocks=(Block(("11" * 5 + "000001",)),))  # its low bit is missing
    yield "stream_rice_cut_low_bits", Invalid(cut, "BAD_STREAM", 0)
    runs = replace(RL_BLOB, run_code=0x10)
    for name, text in (
        ("run_beyond_block", "001" + rice(13, 0)),
        ("run_beyond_block_by_an_escape", "001" + rice(16, 0)),
        ("run_is_0_in_16_bits", "001" + rice(65536, 0)),
    ):
        block = Block((text, "1 010"), coded=2)
        yield f"stream_rl_rice_{name}", Invalid(replace(runs, blocks=(block,)), "BAD_STREAM", 0)
