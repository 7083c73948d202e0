"""Bits as the paper's table 2 has them, through each backend's encoder, and the numpy decoder on odd streams."""

from __future__ import annotations

import numpy as np
import pytest
from blob_builder import bits, eg, rice
from valid_vectors import RICE_0_TO_5, SYMBOLS_0_TO_5

from bsexport_runtime import codes
from bsexport_runtime.codec import Codec
from bsexport_runtime.format import DType, Layout

SIX = np.array([0, 1, -1, 2, -2, 3], dtype=np.int32)


def payload(coder: Codec, levels: np.ndarray, codebook: np.ndarray, order: int) -> bytes:
    blob = coder.encode(levels, dtype=DType.FLOAT32, step=1.0, codebook=codebook, layout=Layout.EG, level_code=order)
    return blob[coder.parse(blob).head_bytes :]


@pytest.mark.parametrize("order", SYMBOLS_0_TO_5)
def test_the_paper_s_table_2(coder: Codec, order: int) -> None:
    assert payload(coder, SIX, SIX, order) == bits(SYMBOLS_0_TO_5[order])


@pytest.mark.parametrize("order", RICE_0_TO_5)
def test_golomb_rice(coder: Codec, order: int) -> None:
    assert payload(coder, SIX, SIX, 16 + order) == bits(RICE_0_TO_5[order])


@pytest.mark.parametrize(
    ("code", "symbol", "text"),
    [
        (0, 6, "00111"),
        (0, 7, "0001000"),
        (0, 65534, "000000000000000 1111111111111111"),
        (0, 65535, "0000000000000000 1 0000000000000000"),
        (1, 6, "001000"),
        (1, 65535, "000000000000000 1 0000000000000001"),
        (5, 31, "111111"),
        (5, 32, "01000000"),
        (15, 32767, "1111111111111111"),
        (15, 32768, "0 1 0000000000000000"),
        (15, 65535, "0 1 0111111111111111"),
        (0x10, 15, "000000000000000 1"),
        (0x10, 16, "0000000000000000 1"),
        (0x10, 17, "0000000000000000 010"),
        (0x10, 65535, "0000000000000000 000000000000000 1 111111111110000"),
        (0x11, 31, "000000000000000 1 1"),
        (0x11, 32, "0000000000000000 10"),
        (0x11, 34, "0000000000000000 0100"),
        (0x12, 63, "000000000000000 1 11"),
        (0x12, 65535, "0000000000000000 0000000000000 1 111111111000011"),
        (0x1C, 65535, "000000000000000 1 111111111111"),
        (0x1F, 32768, "01 000000000000000"),
        (0x1F, 65535, "01 111111111111111"),
    ],
)
def test_single_codewords(coder: Codec, code: int, symbol: int, text: str) -> None:
    codebook = np.arange(65536, dtype=np.int32)
    blob = payload(coder, np.array([symbol], dtype=np.int32), codebook, code)
    assert blob == bits(text)
    assert codes.code_lengths(np.array([symbol]), code).tolist() == [len(text.replace(" ", ""))]
    assert (rice if code & 16 else eg)(symbol, code & 15) == text.replace(" ", "")


def test_rl_streams_start_on_bytes(coder: Codec) -> None:
    levels = np.array([0, 0, 1, 0, 0, 0, -1, 1, 0], dtype=np.int32)
    codebook = np.array([0, 1, -1], dtype=np.int32)
    blob = coder.encode(
        levels, dtype=DType.FLOAT16, step=0.5, codebook=codebook, layout=Layout.RL, level_code=1, run_code=0
    )
    assert blob[128:] == bits("011 00100 1") + bits("10 11 10")


def test_the_codebook_takes_the_shortest_order(coder: Codec) -> None:
    # s is 2^26-1 and 2^26: with order 15, 38 bits each instead of 53.
    codebook = np.array([-(2**24), 0], dtype=np.int32)
    blob = coder.encode(codebook, dtype=DType.FLOAT32, step=1.0, codebook=codebook, layout=Layout.EG, level_code=0)
    head = coder.parse(blob)
    assert (head.codebook_order, head.codebook_bytes) == (15, 10)
    assert blob[56:66] == bits(eg(2**26 - 1, 15) + eg(2**26, 15))
    assert coder.decode_levels(blob).tolist() == [-(2**24), 0]


def test_the_codebook_takes_the_smallest_of_equal_orders(coder: Codec) -> None:
    # z is 1, 3, 4: s is 1, 3, 1: "010 00100 010" and "11 0101 11", 11 and 8 bits; then 101 111 101, 9.
    codebook = np.array([1, 2, -2], dtype=np.int32)
    blob = coder.encode(codebook, dtype=DType.FLOAT32, step=1.0, codebook=codebook, layout=Layout.EG, level_code=0)
    assert coder.parse(blob).codebook_order == 1
    # One level, 0: "1" with order 0.
    only = np.zeros(1, dtype=np.int32)
    blob = coder.encode(only, dtype=DType.FLOAT32, step=1.0, codebook=only, layout=Layout.EG, level_code=0)
    assert (coder.parse(blob).codebook_order, blob[56:57]) == (0, b"\x80")


def streams(*rows: tuple[int, int, int, int]) -> codes.Streams:
    return codes.Streams(*np.array(rows, dtype=np.int64).T)


def padded(data: bytes) -> np.ndarray:
    return np.frombuffer(data + bytes(-len(data) % 4 + codes.SLOP_BYTES), dtype=np.uint8)


def test_streams_of_all_codes_in_lock_step() -> None:
    """Long and short codewords, streams of very different lengths, none on a word's border."""
    rng = np.random.default_rng(7)
    data, rows, expected = b"\xff", [], []
    for code in range(32):
        order, write = code & 15, rice if code & 16 else eg
        for count in (1, 2, 127, 128, 129, 1000):
            values = np.minimum(rng.geometric(0.5 ** (order + 1), count) ** rng.integers(1, 3), 65535)
            text = "".join(write(int(value), order) for value in values)
            rows.append((len(data), len(bits(text)), code, count))
            data += bits(text)
            expected.append(values.tolist())
    decoded = list(codes.decode(padded(data), streams(*rows)))
    assert [None if values is None else values.tolist() for values in decoded] == expected


def test_a_bad_stream_does_not_disturb_its_neighbours() -> None:
    good = bits("1 010 011")
    data = good + bytes(40) + good
    decoded = list(codes.decode(padded(data), streams((0, 1, 0, 3), (1, 40, 0, 5), (41, 1, 0, 3))))
    assert decoded[1] is None
    assert [decoded[0].tolist(), decoded[2].tolist()] == [[0, 1, 2], [0, 1, 2]]  # type: ignore[union-attr]
