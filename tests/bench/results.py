"""Tables of measurements in docs/results.md, each between its own markers."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first column is text, the others are numbers. Every row is as long as the header."""
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"a row has not the {len(header)} columns of the header")
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """Where the figures come from, in one line."""
    cpu = Path("/proc/cpuinfo")
    names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    model = names[0].partition(": ")[2] if names else platform.machine()
    versions = f"Python {platform.python_version()}, onnxruntime {ort.__version__}, numpy {np.__version__}"
    # Other work on the machine lengthens every time; one busy core of our own is a load of 1.
    return f"{max(len(names), 1)} cores of {model}; {versions}; load average {os.getloadavg()[2]:.1f}"


def write(name: str, command: str, text: str) -> None:
    """Put a measurement and the command that made it between the markers `name`; the markers must be there."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    page = PAGE.read_text()
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"{PAGE}: expected one pair of markers {begin.strip()} and {end}")
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n`{command}`, on {machine()}:\n\n{text}\n\n{end}{after}")
