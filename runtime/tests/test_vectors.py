"""The conformance vectors on every reader: the committed files, the oracle and the backends."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import make_vectors
import numpy as np
import pytest
import reference_decoder
from valid_vectors import WORKED_LEVELS

from bsexport_runtime.codec import Codec
from bsexport_runtime.errors import BlobError, Status
from bsexport_runtime.format import DType, Layout

VALID = json.loads((make_vectors.VECTORS / "valid" / "expected.json").read_text())
INVALID = json.loads((make_vectors.VECTORS / "invalid" / "expected.json").read_text())
PAGE = Path(__file__).parents[2] / "docs" / "format.md"


def read(kind: str, name: str) -> bytes:
    return (make_vectors.VECTORS / kind / f"{name}.bsxb").read_bytes()


def unrepeated(runs: list[list[Any]]) -> list[Any]:
    return [item for item, count in runs for _ in range(count)]


def test_the_files_are_what_the_generator_makes() -> None:
    made = dict(make_vectors.files())
    found = {
        path.relative_to(make_vectors.VECTORS).as_posix(): path.read_bytes()
        for path in make_vectors.VECTORS.rglob("*.*")
    }
    assert sorted(found) == sorted(made)
    assert [name for name in made if found[name] != made[name]] == []


def test_every_status_of_a_blob_has_a_vector() -> None:
    not_of_a_blob = {"OK", "BAD_ARGUMENT"}
    assert {entry["status"] for entry in INVALID.values()} == set(Status.__members__) - not_of_a_blob


@pytest.mark.parametrize("name", VALID)
def test_the_oracle_decodes(name: str) -> None:
    decoded = reference_decoder.Decoded(read("valid", name))
    expected = VALID[name]
    assert (decoded.dtype, list(decoded.shape)) == (expected["dtype"], expected["shape"])
    assert decoded.levels == (expected["levels"] and unrepeated(expected["levels"]))
    assert decoded.data == bytes.fromhex("".join(unrepeated(expected["weights"])))


@pytest.mark.parametrize("name", VALID)
def test_a_backend_decodes(coder: Codec, name: str) -> None:
    blob, expected = read("valid", name), VALID[name]
    head = coder.parse(blob)
    assert (head.dtype, list(head.shape)) == (expected["dtype"], expected["shape"])
    weights = bytes.fromhex("".join(unrepeated(expected["weights"])))
    out = bytearray(head.nbytes)
    coder.decode_into([blob], [out])
    assert out == weights
    decoded = coder.decode(blob)
    assert decoded.shape == head.shape
    if head.dtype is DType.BFLOAT16:
        assert decoded.dtype == np.float32
        assert (decoded.view(np.uint32) >> 16).astype("<u2").tobytes() == weights
    else:
        assert decoded.tobytes() == weights
    if expected["levels"] is not None:
        levels = coder.decode_levels(blob)
        assert (levels.dtype, levels.shape) == (np.int32, head.shape)
        assert levels.ravel().tolist() == unrepeated(expected["levels"])


OTHERS = [name for name in VALID if "others" in VALID[name]]


@pytest.mark.parametrize("name", OTHERS)
def test_the_oracle_offers_other_types(name: str) -> None:
    decoded = reference_decoder.Decoded(read("valid", name))
    for dtype, data in VALID[name]["others"].items():
        if data is None:
            with pytest.raises(reference_decoder.RefusedError, match="17"):
                decoded.as_type(int(dtype))
        else:
            assert decoded.as_type(int(dtype)) == bytes.fromhex(data), dtype


@pytest.mark.parametrize("name", OTHERS)
def test_a_backend_offers_other_types(coder: Codec, name: str) -> None:
    blob = read("valid", name)
    for dtype, data in VALID[name]["others"].items():
        out_type = DType(int(dtype))
        out = bytearray(coder.parse(blob).weights * out_type.storage.itemsize)
        if data is None:
            with pytest.raises(BlobError) as caught:
                coder.decode_into([blob], [out], out_type=out_type)
            assert caught.value.status is Status.BAD_ARGUMENT
        else:
            coder.decode_into([blob], [out], out_type=out_type)
            assert out == bytes.fromhex(data), dtype


@pytest.mark.parametrize("name", INVALID)
def test_the_oracle_refuses(name: str) -> None:
    with pytest.raises(reference_decoder.RefusedError) as caught:
        reference_decoder.Decoded(read("invalid", name))
    assert Status(caught.value.args[0]).name == INVALID[name]["status"]


@pytest.mark.parametrize("name", INVALID)
def test_a_backend_refuses(coder: Codec, name: str) -> None:
    with pytest.raises(BlobError) as caught:
        coder.decode(read("invalid", name))
    assert (caught.value.status.name, caught.value.block) == (INVALID[name]["status"], INVALID[name]["block"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, entry in INVALID.items() if entry["block"] is None])
def test_parse_alone_refuses_a_bad_head(coder: Codec, name: str) -> None:
    with pytest.raises(BlobError) as caught:
        coder.parse(read("invalid", name))
    assert caught.value.status.name == INVALID[name]["status"]


def page_example() -> bytes:
    """The blob that section 10 of the page spells out."""
    listing = re.search(r"## 10\. .*?```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert listing
    data = b""
    for line in listing[1].splitlines():
        text = line.split("  ")[0]
        byte, _, count = text.partition(" * ")
        data += bytes.fromhex(byte) * int(count or 1)
    return data


def test_the_worked_example_of_the_page_is_the_vector() -> None:
    assert page_example() == read("valid", "worked_example")
    assert len(page_example()) == 131


def test_the_worked_example_is_what_the_encoder_makes(coder: Codec) -> None:
    levels = np.array(WORKED_LEVELS, dtype=np.int32).reshape(3, 5)
    codebook = np.array([0, 1, -1, 2], dtype=np.int32)
    blob = coder.encode(
        levels, dtype=DType.FLOAT32, step=0.25, codebook=codebook, layout=Layout.RL, level_code=0, run_code=1
    )
    assert blob == page_example()
    weights = [[0, 0, 0, 0.25, 0], [0, -0.25, 0, 0, 0], [0, 0, 0.5, 0, 0.25]]
    assert coder.decode(blob).tolist() == weights


def page_table(heading: str, columns: int) -> list[list[str]]:
    section = re.search(rf"## {re.escape(heading)}\n(.*?)\n## ", PAGE.read_text(), re.DOTALL)
    assert section
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in section[1].splitlines() if line.startswith("|")]
    return [row for row in rows if len(row) == columns]


def test_the_fields_of_the_page_are_those_of_the_code() -> None:
    """The page's offsets against the bytes of a head in which every field differs."""
    data = read("valid", "worked_example")
    numbers = {
        "magic": b"BSXB",
        "version": 0,
        "layout": Layout.RL,
        "dtype": DType.FLOAT32,
        "ndim": 2,
        "level_code": 0,
        "run_code": 1,
        "codebook_code": 1,
        "step": struct.pack("<f", 0.25),
        "symbols": 4,
        "block_rows": 3,
        "block_cols": 5,
        "codebook_bytes": 1,
        "payload_bytes": 3,
        "head_crc": 0xC881244A,
        "index_width": 2,
        "pairs": 0,
        "reserved": 0,
    }
    rows = {row[2]: (int(row[0]), int(row[1])) for row in page_table("2. The blob", 4) if row[1].isdigit()}
    assert list(rows) == list(numbers)
    for name, (offset, size) in rows.items():
        number = numbers[name]
        assert data[offset : offset + size] == (
            number if isinstance(number, bytes) else int(number).to_bytes(size, "little")
        ), name


def test_the_statuses_of_the_page_are_those_of_the_code() -> None:
    rows = [row for row in page_table("9. Errors", 4) if row[1].isdigit()]
    assert {int(row[1]): row[2] for row in rows} == {status.value: status.name for status in Status if status}
