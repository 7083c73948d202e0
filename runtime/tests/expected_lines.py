"""What native/tests/vectors.c must print for vectors, from their expected.json: expected_lines.py FILE..."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any


def items(runs: list[list[Any]]) -> Iterator[str]:
    """The items in hexadecimal, each with how often it follows itself; `runs` may name one several times in a row."""
    for item, group in groupby(runs, key=lambda run: run[0]):
        yield f"{item}*{sum(count for _, count in group)}"


def line(path: Path) -> str:
    """What a blob's line says: its status, and its weights and levels or its bad block."""
    expected = json.loads((path.parent / "expected.json").read_text())[path.stem]
    if "status" in expected:
        words = [expected["status"]]
        if expected["block"] is not None:
            words += ["block", str(expected["block"])]
    else:
        words = ["OK", *items(expected["weights"])]
        if expected["levels"] is not None:
            levels = [[level.to_bytes(4, "little", signed=True).hex(), count] for level, count in expected["levels"]]
            words += ["OK", *items(levels)]
    return " ".join([path.name, *words])


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(line(Path(name)))
