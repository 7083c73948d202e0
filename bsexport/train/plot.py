"""backslash.svg: loss, shape, sparsity and entropy against the steps of a run (the paper's figures 2 and 3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bsexport.backslash import Rate
from bsexport.plotting import style

PLOT = "backslash.svg"

_PANELS = (
    ("loss", "loss"),
    ("shape", "shape of the weights"),
    ("sparsity", "share of zeros"),
    ("bits", "entropy, bits/weight"),
)


def plot(path: Path, record: dict[str, Any]) -> None:
    """Draw a record's curves, the same bytes for the same record. A dotted line shows where the rate ends."""
    rows = record["curve"]
    rate_steps = Rate.from_json(record["rate"]).rate_steps(record["steps"])
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
            points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            axes.plot(*zip(*points, strict=True) if points else ([], []))
            axes.set(xlabel="step", title=title)
            if rate_steps < record["steps"]:
                axes.axvline(rate_steps, color="grey", linestyle=":")
        figure.savefig(path, format="svg", metadata={"Date": None})
