"""The codec's face: the choice of the backend, row access, and what callers can get wrong."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from bsexport_runtime.codec import Codec
from bsexport_runtime.errors import BlobError, Status
from bsexport_runtime.format import DType, Index, Layout, geometry

LEVELS = np.array([[0, 1, -1], [2, 0, 0]], dtype=np.int32)
CODEBOOK = np.array([0, 1, -1, 2], dtype=np.int32)
CLASSES = np.array([0, 1, 2], dtype=np.uint8)
GOOD: dict[str, Any] = {
    "levels": LEVELS,
    "dtype": DType.FLOAT32,
    "step": 0.5,
    "codebook": CODEBOOK,
    "layout": Layout.RL,
    "level_code": 0,
    "run_code": 0,
}


def encode(coder: Codec, **changes: Any) -> bytes:
    arguments = {**GOOD, **changes}
    return coder.encode(arguments.pop("levels"), **arguments)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"layout": Layout.RAW}, "layout is RAW, expected EG, RL or BM: RAW blobs come from encode_raw"),
        ({"dtype": DType.INT8}, "dtype is INT8, expected FLOAT32, FLOAT16, FLOAT64 or BFLOAT16"),
        ({"levels": LEVELS.astype(np.int64)}, "levels are int64, expected int32"),
        ({"levels": LEVELS[:0]}, "shape is [0, 3], expected 1 to 8 dims of at least 1 and at most 2^40 weights"),
        ({"levels": LEVELS[0, 0]}, "shape is [], expected 1 to 8 dims of at least 1 and at most 2^40 weights"),
        ({"levels": LEVELS + 1}, "level 3 is not in the codebook of 4"),
        ({"codebook": CODEBOOK[:0]}, "codebook has 0 levels, expected 1 to 65536"),
        ({"codebook": np.arange(65537, dtype=np.int32)}, "codebook has 65537 levels, expected 1 to 65536"),
        ({"codebook": CODEBOOK.astype(np.int16)}, "codebook is not a row of int32"),
        ({"codebook": np.append(CODEBOOK, CODEBOOK[:1])}, "codebook has a level twice"),
        ({"codebook": np.append(CODEBOOK, np.int32(2**24 + 1))}, "codebook has a level beyond +-2^24"),
        ({"step": 0.0}, "step is 0.0, which is not a finite float32 above 0"),
        ({"step": -1.0}, "step is -1.0, which is not a finite float32 above 0"),
        ({"step": 1e-60}, "step is 1e-60, which is not a finite float32 above 0"),
        ({"step": float("nan")}, "step is nan, which is not a finite float32 above 0"),
        ({"step": 1e39}, "step is 1e+39, which is not a finite float32 above 0"),
        ({"level_code": 32}, "level_code is 32, expected 0 to 31"),
        ({"run_code": -1}, "run_code is -1, expected 0 to 31"),
        ({"layout": Layout.EG, "run_code": 1}, "run_code is 1, expected 0 to 0"),
        ({"layout": Layout.BM, "run_code": 1}, "run_code is 1, expected 0 to 0"),
        ({"layout": Layout.EG, "pair_classes": CLASSES}, "pairs asked for in layout EG, expected RL or BM"),
        ({"pair_classes": CLASSES[:2]}, "pair_classes are not a row of 3 uint8"),
        ({"pair_classes": CLASSES.astype(np.int64)}, "pair_classes are not a row of 3 uint8"),
        ({"pair_classes": CLASSES[::-1]}, "pair_classes fall"),
        ({"pair_classes": CLASSES + np.uint8(62)}, "pair_classes go beyond 63"),
        (
            {"codebook": CODEBOOK[:2], "levels": LEVELS * 0, "pair_classes": CLASSES[:1]},
            "codebook has 2 levels, expected 3 to 65 with pairs",
        ),
    ],
)
def test_encode_refuses(coder: Codec, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(BlobError) as caught:
        encode(coder, **changes)
    assert (caught.value.status, str(caught.value)) == (Status.BAD_ARGUMENT, text)


def test_encode_takes_any_strides(coder: Codec) -> None:
    wide = np.repeat(LEVELS, 2, axis=1)[:, ::2]
    assert encode(coder, levels=wide) == encode(coder)
    assert np.array_equal(coder.decode_levels(encode(coder, levels=LEVELS.T)), LEVELS.T)


def test_encode_raw_refuses_a_wrong_length(coder: Codec) -> None:
    with pytest.raises(BlobError, match=r"data has 5 bytes, but \[2, 3\] of UINT8 takes 6") as caught:
        coder.encode_raw(b"12345", (2, 3), DType.UINT8)
    assert caught.value.status is Status.BAD_ARGUMENT


def test_bfloat16_comes_widened_and_float8_as_bits(coder: Codec) -> None:
    weights = coder.decode(encode(coder, dtype=DType.BFLOAT16))
    assert weights.dtype == np.float32
    assert weights.tolist() == [[0.0, 0.5, -0.5], [1.0, 0.0, 0.0]]
    bits = coder.decode(coder.encode_raw(b"\x38\xb8", (2,), DType.FLOAT8E4M3FN))
    assert (bits.dtype, bits.tolist()) == (np.uint8, [0x38, 0xB8])


def test_rows(coder: Codec) -> None:
    blob = encode(coder)
    weights = coder.decode(blob)
    for start, stop in ((0, 0), (0, 1), (1, 2), (0, 2), (1, 1), (2, 2)):
        rows = coder.decode_rows(blob, start, stop)
        assert (rows.dtype, rows.shape) == (np.float32, (stop - start, 3))
        assert np.array_equal(rows, weights[start:stop])
    assert coder.decode_rows(encode(coder, dtype=DType.BFLOAT16), 1, 1).dtype == np.float32
    for start, stop in ((-1, 1), (0, 3), (2, 1)):
        with pytest.raises(BlobError) as caught:
            coder.decode_rows(blob, start, stop)
        assert caught.value.status is Status.BAD_ARGUMENT


@pytest.mark.parametrize("shape", [(5, 3), (40, 1000), (2, 70000), (3, 20000), (100000,)])
def test_parts_are_slices_of_the_whole(coder: Codec, shape: tuple[int, ...]) -> None:
    """Of blocks of many rows, of one row, and of pieces of a row; begun and ended inside blocks and at their ends."""
    levels = np.random.default_rng(0).integers(-1, 3, shape, dtype=np.int32)
    blob = encode(coder, levels=levels)
    flat = (levels * np.float32(0.5)).reshape(-1)
    places = [0, 1, 16384, 16385, 32768, 70000, 86384, flat.size - 1, flat.size]
    places = [place for place in places if place <= flat.size]
    for begin, end in ((begin, end) for begin in places for end in places if begin <= end):
        assert np.array_equal(coder.decode_part(blob, begin, end), flat[begin:end])
    for begin, end in ((-1, 1), (0, flat.size + 1), (2, 1)):
        with pytest.raises(BlobError) as caught:
            coder.decode_part(blob, begin, end)
        assert caught.value.status is Status.BAD_ARGUMENT


@pytest.mark.parametrize("layout", [Layout.EG, Layout.RL, Layout.BM])
def test_blocks_encoded_in_parts_make_the_same_blob(coder: Codec, layout: Layout) -> None:
    """Whole rows, and pieces of rows of which the last is longer than a block, but would be one block by itself."""
    how: dict[str, Any] = {"codebook": CODEBOOK, "layout": layout, "level_code": 0}
    for shape, cuts in (((40, 1000), (0, 16, 32, 40)), ((2, 70000), (0, 32768, 70000))):
        levels = np.random.default_rng(0).integers(-1, 3, shape, dtype=np.int32)
        pieces = [levels[a:b] for a, b in pairwise(cuts)]
        if shape == (2, 70000):
            pieces = [levels[row : row + 1, a:b] for row in (0, 1) for a, b in pairwise(cuts)]
        made = [coder.encode_blocks(piece, grid=geometry(shape), **how) for piece in pieces]
        index = Index(*(np.concatenate(each) for each in zip(*(index for _, index in made), strict=True)))
        head = coder.head(index, shape=shape, dtype=DType.FLOAT32, step=0.5, **how)
        whole = encode(coder, levels=levels, layout=layout)
        assert head + b"".join(payload for payload, _ in made) == whole


def test_rows_touch_only_their_blocks(coder: Codec) -> None:
    """One block a row; the last row's block is damaged."""
    levels = np.zeros((3, 16384), dtype=np.int32)
    levels[:, 5] = [1, 2, -1]
    blob = bytearray(encode(coder, levels=levels))
    blob[-1] ^= 0x80
    assert coder.decode_rows(bytes(blob), 0, 2)[:, 5].tolist() == [0.5, 1.0]
    with pytest.raises(BlobError) as caught:
        coder.decode_rows(bytes(blob), 1, 3)
    assert (caught.value.status, caught.value.block) == (Status.BLOCK_CRC, 2)


def test_decode_into_refuses_wrong_buffers(coder: Codec) -> None:
    blob = encode(coder)
    read_only = np.zeros(6, dtype=np.float32)
    read_only.flags.writeable = False
    for outs, text in (
        ([bytearray(23)], "blob: output of 23 bytes, expected 24"),
        ([bytearray(25)], "blob: output of 25 bytes, expected 24"),
        ([bytearray()], "blob: output of 0 bytes, expected 24"),
        ([], "1 blobs, but 0 buffers"),
        ([read_only], "blob: output is read-only"),
    ):
        with pytest.raises(BlobError) as caught:
            coder.decode_into([blob], outs)
        assert (caught.value.status, str(caught.value)) == (Status.BAD_ARGUMENT, text)


def test_decode_into_takes_any_buffer(coder: Codec) -> None:
    """An arena's slices need not lie on a weight's border."""
    blob = encode(coder)
    arena = bytearray(24 + 3)
    coder.decode_into([blob], [memoryview(arena)[3:]])
    assert bytes(arena[3:]) == coder.decode(blob).tobytes()
    matrix = np.zeros((2, 3), dtype=np.float32)
    coder.decode_into([blob], [matrix])
    assert np.array_equal(matrix, coder.decode(blob))
    coder.decode_into([], [])


def test_blocks_that_are_not_there(coder: Codec) -> None:
    opened = coder.backend.Opened(encode(coder))
    for first, count in ((0, 2), (1, 1), (-1, 1), (0, -1)):
        with pytest.raises(BlobError) as caught:
            opened.decode_blocks(first, count, bytearray(24), out_type=None)
        assert caught.value.status is Status.BAD_ARGUMENT


def test_values_are_counted(coder: Codec) -> None:
    levels = np.array([[0, -2, 3], [0, 0, -2], [3, 0, 1]], np.int32)
    assert coder.count(levels, least=-2, bins=6).tolist() == [2, 0, 4, 1, 0, 2]
    assert coder.count(levels[:, 0], least=0, bins=4).tolist() == [2, 0, 0, 1]
    weights = np.array([1, -1, 0, -0.0, 2], np.float32)
    counts = coder.count(weights, mask=0x7FFFFFFF, shift=15, bins=1 << 16)
    assert {place: counts[place] for place in np.flatnonzero(counts)} == {0: 2, 0x7F00: 2, 0x8000: 1}
    assert coder.count(levels[:0], bins=2).tolist() == [0, 0]
    for bins, least in ((5, -2), (6, -1)):
        with pytest.raises(BlobError, match=f"a value is in none of {bins} bins") as caught:
            coder.count(levels, least=least, bins=bins)
        assert caught.value.status is Status.BAD_ARGUMENT


def test_raw_has_no_levels(coder: Codec) -> None:
    blob = coder.encode_raw(b"12", (2,), DType.UINT8)
    with pytest.raises(BlobError, match="blob: levels asked for, but a RAW blob has none") as caught:
        coder.decode_levels(blob)
    assert caught.value.status is Status.BAD_ARGUMENT


def test_types_on_request(coder: Codec) -> None:
    blob = encode(coder, levels=LEVELS * 100, codebook=CODEBOOK * 100)
    for out_type, dtype, levels in (
        (DType.FLOAT16, np.float16, LEVELS * 50),
        (DType.BFLOAT16, np.float32, LEVELS * 50),
        (DType.INT16, np.int16, LEVELS * 100),
        (DType.INT32, np.int32, LEVELS * 100),
    ):
        weights = coder.decode(blob, out_type=out_type)
        assert (weights.dtype, weights.tolist()) == (dtype, levels.tolist())
        assert np.array_equal(coder.decode_rows(blob, 1, 2, out_type=out_type), weights[1:])
        assert coder.decode_rows(blob, 1, 1, out_type=out_type).dtype == dtype


@pytest.mark.parametrize(
    ("out_type", "text"),
    [
        (DType.INT8, "blob: level 200 does not fit INT8, which was asked for"),
        (DType.UINT8, "blob: UINT8 asked for, which coded weights do not come in"),
        (DType.INT64, "blob: INT64 asked for, which coded weights do not come in"),
    ],
)
def test_types_that_cannot_be_had(coder: Codec, out_type: DType, text: str) -> None:
    blob = encode(coder, levels=LEVELS * 100, codebook=CODEBOOK * 100)
    out = bytearray(6 * out_type.storage.itemsize)
    for decode in (
        lambda: coder.decode(blob, out_type=out_type),
        lambda: coder.decode_rows(blob, 0, 1, out_type=out_type),
        lambda: coder.decode_into([blob], [out], out_type=out_type),
    ):
        with pytest.raises(BlobError) as caught:
            decode()
        assert (caught.value.status, str(caught.value)) == (Status.BAD_ARGUMENT, text)


def test_raw_comes_in_its_own_type_alone(coder: Codec) -> None:
    blob = coder.encode_raw(b"12", (2,), DType.UINT8)
    assert coder.decode(blob, out_type=DType.UINT8).tobytes() == b"12"
    with pytest.raises(BlobError, match="blob: INT8 asked for, but a RAW blob has its UINT8 alone") as caught:
        coder.decode(blob, out_type=DType.INT8)
    assert caught.value.status is Status.BAD_ARGUMENT


SCRIPT = """
import sys, warnings
from bsexport_runtime import codec
if sys.argv[1] == "big":
    sys.byteorder = "big"
if sys.argv[1] == "hidden":
    sys.modules["bsexport_runtime.native"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        print(codec.backend())
    except codec.BackendError as error:
        print("BackendError:", error)
    codec.backend() if sys.argv[2] == "twice" and sys.argv[1] != "big" else None
print(len(caught), "warnings", *(warning.category.__name__ for warning in caught))
"""


def chosen(hidden: str, **environment: str) -> list[str]:
    twice = "twice" if "BSEXPORT_REQUIRE_NATIVE" not in environment else "once"
    command = [sys.executable, "-c", SCRIPT, hidden, twice]
    env = {"PYTHONPATH": ":".join(path for path in sys.path if path), **environment}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_missing_library_is_loud() -> None:
    words, warned = chosen("hidden")
    assert words.startswith("numpy (no native library: ")
    assert warned == "1 warnings RuntimeWarning"


def test_numpy_on_request_is_silent() -> None:
    assert chosen("there", BSEXPORT_BACKEND="numpy") == ["numpy (BSEXPORT_BACKEND asks for it)", "0 warnings"]


def test_the_library_can_be_required() -> None:
    words, warned = chosen("hidden", BSEXPORT_REQUIRE_NATIVE="1")
    assert words.startswith("BackendError: ")
    assert warned == "0 warnings"


def test_big_endian_processors_are_refused() -> None:
    for asked in ("", "numpy"):
        words, warned = chosen("big", BSEXPORT_BACKEND=asked)
        assert words.startswith("BackendError: ") and words.endswith("big-endian processors are not supported")
        assert warned == "0 warnings"


def test_an_unknown_backend_is_refused() -> None:
    words, _ = chosen("there", BSEXPORT_BACKEND="numba", BSEXPORT_REQUIRE_NATIVE="1")
    assert words == "BackendError: BSEXPORT_BACKEND is 'numba', expected nothing or 'numpy'"
