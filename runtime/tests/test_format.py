"""What heads may claim, and what a writer chooses."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from blob_builder import Block
from invalid_vectors import BM_BLOB, EG_BLOB, RAW_BLOB, RL_BLOB

from bsexport_runtime import format
from bsexport_runtime.codec import Codec
from bsexport_runtime.errors import BlobError, Status
from bsexport_runtime.format import DType, Layout


@pytest.mark.parametrize(
    ("shape", "rows", "cols"),
    [
        ((1,), 1, 1),
        ((100,), 100, 1),
        ((100000,), 16384, 1),
        ((384, 384), 42, 384),
        ((10, 384), 10, 384),
        ((30522, 384), 42, 384),
        ((5, 16384), 1, 16384),
        ((5, 16385), 1, 16385),
        ((5, 65536), 1, 65536),
        ((5, 65537), 1, 16384),
        ((64, 3, 7, 7), 64, 147),
        ((2, 3, 4096), 1, 12288),
    ],
)
def test_geometry(shape: tuple[int, ...], rows: int, cols: int) -> None:
    assert format.geometry(shape) == (rows, cols)


def test_blocks_of_a_head(coder: Codec) -> None:
    levels = np.zeros((2, 70000), dtype=np.int32)
    only = np.zeros(1, dtype=np.int32)
    blob = coder.encode(levels, dtype=DType.FLOAT16, step=1.0, codebook=only, layout=Layout.RL, level_code=0)
    head = coder.parse(blob)
    assert (head.rows, head.cols, head.blocks, head.weights, head.itemsize, head.nbytes) == (
        2,
        70000,
        10,
        140000,
        2,
        280000,
    )
    assert (head.index_width, head.entry_bytes, head.payload_bytes) == (2, 10, 0)
    assert head.head_bytes == head.blob_bytes == len(blob) == 192  # 48 + 2 * 8 + 1 + 10 * 10 = 165
    assert [head.block_shape(block) for block in (0, 3, 4, 5, 9)] == [
        (1, 16384),
        (1, 16384),
        (1, 4464),
        (1, 16384),
        (1, 4464),
    ]
    assert head.block_bounds().tolist()[3:8] == [49152, 65536, 70000, 86384, 102768]


def test_index_width_grows_with_the_counts(coder: Codec) -> None:
    for weights, width in ((65535, 2), (65536, 4)):
        data = bytes(weights)
        assert coder.parse(coder.encode_raw(data, (1, weights), DType.UINT8)).index_width == width


HUGE = 2**32 - 1
CLAIMS = {
    "weights": (replace(EG_BLOB, dims=(2**40,), block_rows=65536, block_cols=1), Status.TRUNCATED),
    "blocks": (replace(EG_BLOB, dims=(2**40,), block_rows=1, block_cols=1), Status.TRUNCATED),
    "codebook": (replace(EG_BLOB, codebook_bytes=HUGE, symbols=65536), Status.TRUNCATED),
    "symbols": (replace(EG_BLOB, symbols=65536), Status.BAD_CODEBOOK),
    "payload": (
        replace(EG_BLOB, payload_bytes=HUGE, index_width=4, blocks=(replace(EG_BLOB.blocks[0], counts=(HUGE,)),)),
        Status.TRUNCATED,
    ),
    "raw": (
        replace(
            RAW_BLOB,
            dtype=15,
            dims=(65536,),
            block_rows=65536,
            payload_bytes=1 << 20,
            index_width=4,
            blocks=(replace(RAW_BLOB.blocks[0], counts=(1 << 20,)),),
        ),
        Status.TRUNCATED,
    ),
    "coded": (replace(RL_BLOB, blocks=(replace(RL_BLOB.blocks[0], coded=65535),)), Status.BAD_INDEX),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_small_blob_that_claims_much_takes_no_memory(coder: Codec, name: str) -> None:
    blob, status = CLAIMS[name]
    data = blob.build()
    data += bytes(max(0, 1000 - len(data))) if status is not Status.TRUNCATED else b""
    assert len(data) <= 1024
    coder.backend.crc32c(b"")  # tables that are made once
    tracemalloc.start()
    try:
        with pytest.raises(BlobError) as caught:
            coder.decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.status is status
    assert peak < 100_000


def test_a_bitmap_of_a_whole_tensor_is_there_to_be_counted(coder: Codec) -> None:
    """A BM blob cannot claim weights that its bitmaps have no bits for."""
    blob = replace(BM_BLOB, dims=(2**20,), block_rows=65536, block_cols=1, blocks=(Block(("",), bitmap=b"\0"),) * 16)
    with pytest.raises(BlobError, match="blob: blocks add up to 131072 bytes, but payload_bytes is 16"):
        coder.parse(blob.build())


def test_messages_say_what_was_found_and_expected(coder: Codec) -> None:
    for blob, text in (
        (replace(EG_BLOB, version=1), "blob: has format version 1, this runtime reads 0"),
        (replace(EG_BLOB, level_code=32), "blob: level_code is 32, expected 0 to 31 in layout EG"),
        (replace(EG_BLOB, keep=100), "blob: 100 bytes, but the head with its 1 blocks takes 128"),
        (replace(EG_BLOB, tail=b"x"), "blob: 131 bytes, but head and payload end at 130"),
    ):
        with pytest.raises(BlobError) as caught:
            coder.parse(blob.build())
        assert str(caught.value) == text


def test_every_kind_of_buffer(coder: Codec) -> None:
    data = EG_BLOB.build()
    expected = [[0.0, 0.5, -0.5], [0.0, 0.0, 0.0]]
    shifted = bytearray(b"x" + data)
    kinds = [data, bytearray(data), memoryview(data), np.frombuffer(data, dtype=np.uint8), memoryview(shifted)[1:]]
    kinds.append(np.frombuffer(data, dtype=np.uint16))
    for kind in kinds:
        assert coder.decode(kind).tolist() == expected
    with pytest.raises(BlobError) as caught:
        coder.parse(b"")
    assert caught.value.status is Status.TRUNCATED


def test_types_have_the_sizes_of_onnx() -> None:
    assert {dtype.value: dtype.storage.itemsize for dtype in DType} == {
        1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2,
        17: 1, 18: 1, 19: 1, 20: 1,
    }  # fmt: skip


def test_step_is_the_float32_of_the_file(coder: Codec) -> None:
    levels = np.array([1], dtype=np.int32)
    blob = coder.encode(levels, dtype=DType.FLOAT32, step=0.1, codebook=levels, layout=Layout.EG, level_code=0)
    assert blob[12:16] == struct.pack("<f", 0.1)
    assert coder.parse(blob).step == 0.10000000149011612
