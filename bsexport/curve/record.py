"""curve.json and curve.csv: what was measured, on what, and with what."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from bsexport.curve.point import SIZES
from bsexport.record import read_record

RECORD, TABLE = "curve.json", "curve.csv"
FORMAT = "bsexport curve"
VERSION = 0
DEPENDENCIES = (
    *("bsexport-runtime", "onnxruntime", "numpy", "torch", "transformers", "tokenizers", "onnx", "onnxscript"),
    *("datasets", "pillow"),
)
"""Distributions that figures depend on."""


def is_curve(path: Path) -> bool:
    """Whether a directory that curve made stands at the path: what --force may replace."""
    return read_record(path / RECORD, FORMAT) is not None


def write_csv(path: Path, record: dict[str, Any]) -> None:
    """Write a line for each point: model, prune, step, each figure with its interval, sizes, seconds, command.

    The dense model's prune, step and sizes are empty.
    """
    points = [(model["name"], point) for model in record["models"] for point in model["points"]]
    names = list(points[0][1]["figures"])
    bench = sorted({key for _, point in points for key in point.get("bench", {})})
    header = ["model", "prune", "step"]
    header += [f"{name}{suffix}" for name in names for suffix in ("", "_low", "_high")]
    header += [*SIZES, *bench, "seconds", "command"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for name, point in points:
            figures = [point["figures"][each][part] for each in names for part in ("value", "low", "high")]
            sizes = [point.get(size, "") for size in SIZES]
            measured = [point.get("bench", {}).get(each, "") for each in bench]
            seconds = f"{sum(point['seconds'].values()):.3f}"
            row = [name, point["prune"], point["step"], *figures, *sizes, *measured, seconds, point["command"]]
            writer.writerow(["" if value is None else value for value in row])
