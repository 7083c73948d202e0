"""CRC-32C against published answers and against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import reference_decoder

from bsexport_runtime.codec import Codec
from bsexport_runtime.crc import crc32c_ranges


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0x00000000),
        (b"123456789", 0xE3069283),
        # RFC 3720, B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_known_answers(coder: Codec, data: bytes, crc: int) -> None:
    assert coder.backend.crc32c(data) == crc
    assert reference_decoder.crc32c(data) == crc


def test_every_length_up_to_a_few_rows(coder: Codec) -> None:
    data = np.random.default_rng(1).bytes(1100)
    for length in [*range(20), *range(248, 264), 507, 508, 509, 1100]:
        assert coder.backend.crc32c(data[:length]) == reference_decoder.crc32c(data[:length]), length


def test_ranges_of_different_lengths_at_once() -> None:
    data = np.frombuffer(np.random.default_rng(2).bytes(5000), dtype=np.uint8)
    starts = np.array([0, 5, 4990, 17, 3, 0])
    lengths = np.array([0, 1, 10, 4321, 256, 5000])
    expected = [
        reference_decoder.crc32c(data[start : start + length].tobytes())
        for start, length in zip(starts, lengths, strict=True)
    ]
    assert crc32c_ranges(data, starts, lengths).tolist() == expected
