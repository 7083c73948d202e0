"""curve.json and curve.csv: what was measured, on what, and with what."""

from __future__ import annotations

import csv
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bsexport import __version__
from bsexport.curve.point import SIZES

RECORD, TABLE = "curve.json", "curve.csv"
FORMAT = "bsexport curve"
VERSION = 0
_DEPENDENCIES = (
    *("bsexport-runtime", "onnxruntime", "numpy", "torch", "transformers", "tokenizers", "onnx", "onnxscript"),
    *("datasets", "pillow"),
)


def is_curve(path: Path) -> bool:
    """Whether a directory that curve made stands at the path: what --force may replace."""
    try:
        found = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


def versions() -> dict[str, str]:
    """Of bsexport and of what the figures depend on."""
    found = {"bsexport": __version__, "python": platform.python_version()}
    for name in _DEPENDENCIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write the record."""
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


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
