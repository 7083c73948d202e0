"""Any tensor comes back, and any damage is met with the same answer by the oracle and by both backends."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference_decoder
from hypothesis import given, settings
from hypothesis import strategies as st

from bsexport_runtime.codec import Codec
from bsexport_runtime.errors import BlobError
from bsexport_runtime.format import DType, Layout

CODED = [DType.FLOAT32, DType.FLOAT16, DType.FLOAT64, DType.BFLOAT16]


@dataclass
class Tensor:
    """Levels and how to code them."""

    levels: np.ndarray
    how: dict[str, Any]

    def encode(self, coder: Codec, threads: int = 1) -> bytes:
        return coder.encode(self.levels, **self.how, threads=threads)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0.3, 2.0, 100.0, 1e6]))
    levels = np.clip(np.rint(rng.laplace(0, scale, shape)), -(2**24), 2**24).astype(np.int32)
    levels[rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))] = 0
    layout = draw(st.sampled_from([Layout.EG, Layout.RL, Layout.BM]))
    codebook = rng.permutation(np.unique(levels))
    pairs = layout.pairs and codebook.size in range(3, 66) and draw(st.booleans())
    classes = np.sort(rng.integers(0, draw(st.integers(1, 64)), codebook.size - 1)).astype(np.uint8)
    how = {
        "codebook": codebook,
        "layout": layout,
        "level_code": draw(st.integers(0, 31)),
        "run_code": draw(st.integers(0, 31)) if layout is Layout.RL else 0,
        "pair_classes": classes if pairs else None,
        "dtype": draw(st.sampled_from(CODED)),
        "step": draw(st.floats(2.0**-149, 2.0**127, width=32)),
    }
    return Tensor(levels, how)


def answer(coder: Codec, blob: bytes) -> tuple[Any, ...]:
    """What a backend makes of a blob: the status and the block, or the bytes and the levels."""
    try:
        head = coder.parse(blob)
        out = bytearray(head.nbytes)
        coder.decode_into([blob], [out])
        levels = None if head.layout is Layout.RAW else coder.decode_levels(blob).ravel().tolist()
    except BlobError as error:
        return int(error.status), error.block
    return bytes(out), levels


def answer_in(coder: Codec, blob: bytes, out_type: DType) -> bytes | int:
    """The status, or the bytes in another type."""
    out = bytearray(coder.parse(blob).weights * out_type.storage.itemsize)
    try:
        coder.decode_into([blob], [out], out_type=out_type)
    except BlobError as error:
        return int(error.status)
    return bytes(out)


def oracle_in(decoded: reference_decoder.Decoded, out_type: DType) -> bytes | int:
    try:
        return decoded.as_type(out_type)
    except reference_decoder.RefusedError as refused:
        return int(refused.args[0])


def check_all_agree(coders: list[Codec], blob: bytes) -> None:
    answers = [answer(coder, blob) for coder in coders]
    assert all(other == answers[0] for other in answers)
    try:
        decoded = reference_decoder.Decoded(blob)
    except reference_decoder.RefusedError as refused:
        assert answers[0][0] == refused.args[0]
    else:
        assert answers[0] == (decoded.data, decoded.levels)


@settings(max_examples=200, deadline=None)
@given(tensors(), st.sampled_from(DType))
def test_tensors_come_back(coders: list[Codec], tensor: Tensor, out_type: DType) -> None:
    blobs = [tensor.encode(coder) for coder in coders]
    assert all(blob == blobs[0] for blob in blobs)
    check_all_agree(coders, blobs[0])
    decoded = reference_decoder.Decoded(blobs[0])
    for coder in coders:
        assert np.array_equal(coder.decode_levels(blobs[0]), tensor.levels)
        assert answer_in(coder, blobs[0], out_type) == oracle_in(decoded, out_type)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(DType), st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 2**32))
def test_raw_tensors_come_back(coders: list[Codec], dtype: DType, shape: list[int], seed: int) -> None:
    shape = shape[:3] + [1] * len(shape[3:])
    data = np.random.default_rng(seed).bytes(int(np.prod(shape)) * dtype.storage.itemsize)
    blobs = [coder.encode_raw(data, shape, dtype) for coder in coders]
    assert all(blob == blobs[0] for blob in blobs)
    check_all_agree(coders, blobs[0])
    assert answer(coders[0], blobs[0])[0] == data


@settings(max_examples=400, deadline=None)
@given(tensors(), st.data())
def test_damage_is_found(coders: list[Codec], tensor: Tensor, data: st.DataObject) -> None:
    """With the CRCs as they were, no change goes unnoticed."""
    blob = tensor.encode(coders[0])
    cut = data.draw(st.integers(0, len(blob) - 1))
    for damaged in (
        changed(blob, data),
        blob[:cut],
        blob + data.draw(st.binary(min_size=1, max_size=70)),
        blob[:cut] + data.draw(st.binary(min_size=1, max_size=3)) + blob[cut:],
    ):
        if damaged != blob:
            check_all_agree(coders, damaged)
            assert isinstance(answer(coders[0], damaged)[0], int)


@settings(max_examples=400, deadline=None)
@given(tensors(), st.data())
def test_lies_with_true_checksums(coders: list[Codec], tensor: Tensor, data: st.DataObject) -> None:
    """With the CRCs made true again, every reader says the same, whatever it says."""
    blob = tensor.encode(coders[0])
    head = coders[0].parse(blob)
    lie = bytearray(changed(blob, data))
    entry_end, place = head.index_offset, head.head_bytes
    letter = {2: "H", 4: "I"}[head.index_width]
    for block in range(head.blocks):
        entry_end += head.entry_bytes
        counts = struct.unpack_from(f"<{head.layout.counts}{letter}", lie, entry_end - head.entry_bytes)
        weights = head.block_shape(block)
        size = sum(counts[:2]) + (-(-weights[0] * weights[1] // 8) if head.layout is Layout.BM else 0)
        struct.pack_into("<I", lie, entry_end - 4, reference_decoder.crc32c(bytes(lie[place : place + size])))
        place += size
    lie[40:44] = bytes(4)
    lie[40:44] = struct.pack("<I", reference_decoder.crc32c(bytes(lie[: head.head_bytes])))
    check_all_agree(coders, bytes(lie))


def changed(blob: bytes, data: st.DataObject) -> bytes:
    """The blob with one to three bytes changed; the head, the codebook and the payload have even chances."""
    lie = bytearray(blob)
    for _ in range(data.draw(st.integers(1, 3))):
        region = data.draw(st.sampled_from([(4, 64), (64, len(blob)), (max(len(blob) - 40, 0), len(blob))]))
        place = data.draw(st.integers(region[0], region[1] - 1))
        lie[place] ^= data.draw(st.integers(1, 255))
    return bytes(lie)


def test_one_bit_at_a_time(coders: list[Codec]) -> None:
    """Every bit of a small blob of each layout."""
    levels = np.array([[0, 0, 3, 0], [-1, 0, 0, 1]], dtype=np.int32)
    how: dict[str, Any] = {"dtype": DType.FLOAT16, "step": 0.5, "codebook": np.array([0, 1, -1, 3], dtype=np.int32)}
    classes = np.array([0, 1, 1], dtype=np.uint8)
    blobs = [
        coders[0].encode(levels, layout=Layout.EG, level_code=0x11, **how),
        coders[0].encode(levels, layout=Layout.RL, level_code=0, run_code=0x10, pair_classes=classes, **how),
        coders[0].encode(levels, layout=Layout.BM, level_code=1, **how),
    ]
    blobs.append(coders[0].encode_raw(levels.tobytes(), levels.shape, DType.INT32))
    for blob in blobs:
        for bit in range(8 * len(blob)):
            damaged = bytearray(blob)
            damaged[bit // 8] ^= 1 << bit % 8
            check_all_agree(coders, bytes(damaged))
            assert isinstance(answer(coders[0], bytes(damaged))[0], int)


@pytest.mark.parametrize(
    ("layout", "code", "pairs"),
    [
        (Layout.EG, 2, False),
        (Layout.EG, 0x12, False),
        (Layout.RL, 2, False),
        (Layout.RL, 0x11, True),
        (Layout.BM, 0x12, False),
        (Layout.BM, 3, True),
    ],
)
@pytest.mark.parametrize("shape", [(700, 50), (3, 20000), (2, 70000), (100001,)])
def test_many_blocks(coders: list[Codec], layout: Layout, shape: tuple[int, ...], code: int, pairs: bool) -> None:
    rng = np.random.default_rng(3)
    levels = np.clip(np.rint(rng.laplace(0, 3, shape)), -32, 32).astype(np.int32)
    levels[rng.random(shape) < 0.8] = 0
    codebook = rng.permutation(np.unique(levels))
    codebook = np.concatenate([[0], codebook[codebook != 0]]).astype(np.int32)
    classes = (np.arange(codebook.size - 1) // 3).astype(np.uint8) if pairs else None
    how: dict[str, Any] = {"dtype": DType.FLOAT32, "step": 0.25, "pair_classes": classes, "codebook": codebook}
    tensor = Tensor(levels, {"layout": layout, "level_code": code, **how})
    blobs = [tensor.encode(coder, threads) for coder in coders for threads in (1, 3)]
    assert all(blob == blobs[0] for blob in blobs)
    expected = (levels * np.float32(0.25)).astype(np.float32)
    for coder in coders:
        for threads in (1, 3):
            assert np.array_equal(coder.decode(blobs[0], threads=threads), expected)
            assert np.array_equal(coder.decode_levels(blobs[0], threads=threads), levels)
        for start, stop in ((0, 1), (0, 2), (1, 2), (shape[0] // 3, shape[0]), (shape[0] - 1, shape[0])):
            assert np.array_equal(coder.decode_rows(blobs[0], start, stop), expected[start:stop])


def test_more_blobs_than_fit_one_batch(coders: list[Codec]) -> None:
    """4000 blobs of all layouts and several orders at once."""
    rng = np.random.default_rng(4)
    blobs, expected = [], []
    for order in range(10):
        levels = np.rint(rng.laplace(0, 2**order, (3, 17))).astype(np.int32)
        how: dict[str, Any] = {"codebook": np.unique(levels), "level_code": order, "dtype": DType.FLOAT32, "step": 1.0}
        blobs.append(coders[0].encode(levels, layout=Layout.EG, **how))
        blobs.append(coders[0].encode(levels, layout=Layout.RL, run_code=31 - order, **how))
        blobs.append(coders[0].encode(levels, layout=Layout.BM, **how))
        blobs.append(coders[0].encode_raw(levels.astype(np.float32).tobytes(), levels.shape, DType.FLOAT32))
        expected += [levels.astype(np.float32)] * 4
    for coder in coders:
        outs = [np.empty((3, 17), dtype=np.float32) for _ in range(100 * len(blobs))]
        coder.decode_into(blobs * 100, outs, threads=2)
        assert all(np.array_equal(out, want) for out, want in zip(outs, expected * 100, strict=True))
