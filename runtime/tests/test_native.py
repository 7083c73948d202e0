"""The binding of libbsx: what it refuses to load, its agreement with bsx.h, threads.

The codec itself is tested with both backends in the other files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bsexport_runtime import __version__, codec, fallback, format
from bsexport_runtime.errors import BackendError, BlobError, Status
from bsexport_runtime.format import DType, Layout

HEADER = Path(__file__).parents[1] / "native" / "bsx.h"
CODEBOOK = np.array([0, 1, -1, 2, -2, 3, -3, 40], dtype=np.int32)


@pytest.fixture(scope="module")
def native() -> ModuleType:
    try:
        from bsexport_runtime import native
    except BackendError as error:
        if os.environ.get("BSEXPORT_REQUIRE_NATIVE", "") == "1":
            raise
        pytest.skip(f"NATIVE BACKEND NOT TESTED: {error}")
    return native


def library(native: ModuleType) -> Path:
    return Path(native._lib._name)


def tensor(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.7, 0, CODEBOOK[rng.integers(0, CODEBOOK.size, shape)]).astype(np.int32)


def blob(native: ModuleType, levels: np.ndarray, layout: Layout = Layout.RL) -> bytes:
    return codec.Codec(native).encode(
        levels, dtype=DType.FLOAT32, step=0.5, codebook=CODEBOOK, layout=layout, level_code=1
    )


def test_status_numbers_are_those_of_the_header() -> None:
    enum = HEADER.read_text().split("typedef enum bsx_status")[1].split("}")[0]
    numbers = dict(re.findall(r"BSX_([A-Z_]+) = (\d+)", enum))
    assert {name: int(number) for name, number in numbers.items()} == {status.name: status.value for status in Status}


def test_version_is_that_of_the_header() -> None:
    major, minor, patch = (int(part) for part in __version__.split("."))
    assert f"#define BSX_VERSION 0x{major:02x}{minor:02x}{patch:02x} " in HEADER.read_text()


def test_names_the_library_and_the_crc(native: ModuleType) -> None:
    assert re.fullmatch(r"native: libbsx 0\.1\.0 \(crc32c by (sse4\.2|armv8|table)\)", native.name)


def test_refuses_a_library_that_is_not_there(native: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"libbsx\.so is not installed: .* without a C compiler"):
        native.load_library(tmp_path / "libbsx.so", __version__)


def test_refuses_a_file_that_is_no_library(native: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "libbsx.so").write_bytes(b"not a library")
    with pytest.raises(BackendError, match=r"libbsx\.so cannot be loaded: "):
        native.load_library(tmp_path / "libbsx.so", __version__)


def test_refuses_a_library_of_another_version(native: ModuleType) -> None:
    with pytest.raises(BackendError, match=r"is version 0\.1\.0 with a head of (\d+) bytes, expected 0\.2\.0 with \1:"):
        native.load_library(library(native), "0.2.0")


@pytest.mark.skipif(shutil.which("cc") is None, reason="STALE LIBRARY NOT TESTED: no C compiler")
def test_refuses_a_library_with_another_head(native: ModuleType, tmp_path: Path) -> None:
    stubs = "".join(f"int {function}(void) {{ return 0; }}" for function in native._signatures())
    code = "int bsx_version(void) { return 0x100; } unsigned long bsx_head_size(void) { return 8; }"
    (tmp_path / "bsx.c").write_text(code + stubs)
    subprocess.run(["cc", "-shared", "-fPIC", "bsx.c", "-o", "libbsx.so"], cwd=tmp_path, check=True)
    with pytest.raises(BackendError, match=r"is version 0\.1\.0 with a head of 8 bytes, expected"):
        native.load_library(tmp_path / "libbsx.so", __version__)


@pytest.mark.parametrize("shape", [(1,), (5, 3), (3, 20000), (2, 70000), (4, 2, 5)])
@pytest.mark.parametrize("layout", [Layout.EG, Layout.RL, Layout.BM])
def test_head_is_that_of_the_numpy_parser(native: ModuleType, shape: tuple[int, ...], layout: Layout) -> None:
    data = blob(native, tensor(shape), layout)
    assert native.parse(data) == format.parse(data, fallback.crc32c)


@pytest.mark.parametrize("layout", [Layout.EG, Layout.RL, Layout.BM])
def test_threads_change_nothing(native: ModuleType, layout: Layout) -> None:
    levels = tensor((300, 11000))  # 300 blocks in four tasks
    kwargs = {
        "layout": layout,
        "level_code": 1,
        "run_code": 0,
        "pair_classes": None,
        "block_rows": 1,
        "block_cols": 11000,
    }
    one, counts = native.encode_payload(levels, CODEBOOK, **kwargs, threads=1)
    many, counts_of_many = native.encode_payload(levels, CODEBOOK, **kwargs, threads=3)
    assert one == many
    np.testing.assert_array_equal(counts, counts_of_many)
    data = blob(native, levels, layout)
    outs = [np.empty(levels.shape, dtype=np.float32) for _ in range(3)]
    native.decode_into([data] * 3, outs, out_type=None, threads=3)
    for out in outs:
        np.testing.assert_array_equal(out, levels * np.float32(0.5))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_bad_block_is_reported(native: ModuleType, threads: int) -> None:
    levels = tensor((300, 11000))
    good = blob(native, levels)
    head = native.parse(good)
    sizes = format.block_bytes(head.layout, format.read_index(good, head).counts, np.diff(head.block_bounds()))
    ends = np.cumsum(sizes)
    bad = bytearray(good)
    for block in (250, 131, 130):
        bad[head.head_bytes + int(ends[block]) - 1] ^= 1
    out = np.empty(levels.shape, dtype=np.float32)
    with pytest.raises(BlobError, match=r"^blob: block 130 of 300: its CRC-32C is not the stored one") as caught:
        native.decode_into([good, bad], [out, out], out_type=None, threads=threads)
    assert (caught.value.status, caught.value.block) == (Status.BLOCK_CRC, 130)


def test_blocks_alone(native: ModuleType) -> None:
    levels = tensor((3, 70000))  # five pieces a row
    data = blob(native, levels)
    head = native.parse(data)
    assert (head.block_rows, head.block_cols, head.blocks) == (1, 16384, 15)
    out = np.empty(70000 - 4 * 16384 + 16384, dtype=np.int32)
    native.Opened(data).decode_blocks(9, 2, out, out_type=DType.INT32)
    np.testing.assert_array_equal(out, levels.ravel()[70000 + 4 * 16384 : 140000 + 16384])


def test_refuses_buffers_that_do_not_fit(native: ModuleType) -> None:
    data = blob(native, tensor((4, 5)))
    read_only = np.empty(20, dtype=np.float32)
    read_only.flags.writeable = False
    short = np.empty(19, dtype=np.float32)
    for out, text in ((short, "output of 76 bytes, expected 80"), (read_only, "output is read-only")):
        with pytest.raises(BlobError, match=text) as caught:
            native.decode_into([data], [out], out_type=None, threads=1)
        assert caught.value.status is Status.BAD_ARGUMENT
    with pytest.raises(BlobError, match="blocks 1 to 1 of 1 asked for"):
        native.Opened(data).decode_blocks(1, 1, np.empty(0, np.float32), out_type=None)


def test_an_unknown_level_is_named(native: ModuleType) -> None:
    levels = tensor((4, 5))
    levels[2, 3] = 77
    with pytest.raises(BlobError, match="level 77 is not in the codebook of 8") as caught:
        blob(native, levels)
    assert caught.value.status is Status.BAD_ARGUMENT


def test_takes_any_readable_buffer(native: ModuleType, tmp_path: Path) -> None:
    levels = tensor((4, 5))
    data = blob(native, levels)
    (tmp_path / "weights").write_bytes(b"x" + data)
    mapped = np.memmap(tmp_path / "weights", dtype=np.uint8, mode="r")[1:]
    for source in (data, bytearray(data), memoryview(data), mapped):
        out = bytearray(81)  # a float32 at an odd address
        native.decode_into([source], [memoryview(out)[1:]], out_type=None, threads=1)
        assert bytes(out[1:]) == (levels.astype(np.float32) * np.float32(0.5)).tobytes()


@pytest.mark.parametrize("data", [b"", b"\0", bytes(47)])
def test_short_blobs(native: ModuleType, data: bytes) -> None:
    with pytest.raises(BlobError) as caught:
        native.parse(data)
    assert caught.value.status is Status.TRUNCATED
    assert native.crc32c(b"") == 0
