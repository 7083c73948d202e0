"""Write the conformance vectors of docs/format.md: `python runtime/tests/make_vectors.py`.

vectors/valid/*.bsxb are blobs that every reader must decode to what vectors/valid/expected.json says: the dtype's
number, the shape, the levels (null for RAW) and the decoded weights as little-endian hex, the last two as [item, how
often in a row]. Some say in "others" what the weights are in other types, null for one that does not hold the levels.
Each of vectors/invalid/*.bsxb breaks one rule of section 9; vectors/invalid/expected.json says which status, and which
block if it is one, every reader must report.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import invalid_vectors
import valid_vectors
from reference_decoder import ITEM_BYTES

VECTORS = Path(__file__).with_name("vectors")


def files() -> Iterator[tuple[str, bytes]]:
    """Every file below vectors/ and what it holds."""
    expected: dict[str, Any] = {}
    for name, valid in valid_vectors.vectors():
        yield f"valid/{name}.bsxb", valid.blob.build()
        size = ITEM_BYTES[valid.blob.dtype]
        weights = [valid.data[place : place + size].hex() for place in range(0, len(valid.data), size)]
        expected[name] = {
            "dtype": valid.blob.dtype,
            "shape": valid.blob.dims,
            "levels": None if valid.levels is None else repeats(valid.levels),
            "weights": repeats(weights),
            **({"others": valid.others} if valid.others else {}),
        }
    yield "valid/expected.json", table(expected)
    expected = {}
    for name, invalid in invalid_vectors.vectors():
        yield f"invalid/{name}.bsxb", invalid.blob.build()
        expected[name] = {"status": invalid.status, "block": invalid.block}
    yield "invalid/expected.json", table(expected)


def repeats(items: Iterable[Any]) -> list[list[Any]]:
    return [[item, len(list(group))] for item, group in itertools.groupby(items)]


def table(expected: dict[str, Any]) -> bytes:
    """JSON with one line a vector."""
    lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in expected.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def main() -> None:
    for name, data in files():
        path = VECTORS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
