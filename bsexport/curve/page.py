"""curve.html: one page that needs nothing else; points tell their figures, and the command that makes their package."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from bsexport.curve.plot import AXES, lines, panel
from bsexport.recipe import step_text

PAGE = "curve.html"
_SIZES = ("bits_per_weight", "of_fp32", "weights_bytes")
_BENCH = (
    ("load, ms", "load_seconds", 1e-3),
    ("latency, ms", "median_seconds", 1e-3),
    ("p95, ms", "p95_seconds", 1e-3),
    ("peak, MiB", "peak_bytes", 2**20),
    ("steady, MiB", "steady_bytes", 2**20),
)
_TEMPLATE = Path(__file__).with_name("page.html")


def write_page(path: Path, record: dict[str, Any]) -> None:
    """Write the page."""
    points = [(model, point) for model in record["models"] for point in model["points"]]
    places = {id(point): index for index, (_, point) in enumerate(points)}
    names = list(points[0][1]["figures"])
    bench = [label for label, *_ in _BENCH] if "bench" in points[0][1] else []
    data = {
        "columns": ["model", "pruned", "step", *names, "bits/weight", "of fp32", "bytes", "zeros", *bench, "command"],
        "points": [_cells(model, point, names) for model, point in points],
        "panels": {
            f"{against}-{index}": [places[id(point)] for point in sorted(line, key=lambda each: each[against])]
            for against in AXES
            for index, (_, line) in enumerate(lines(record))
        },
    }
    filled = {
        "TITLE": html.escape(f"{', '.join(model['name'] for model in record['models'])}: {record['primary']}"),
        "SUBTITLE": html.escape(subtitle(record)),
        "FINDINGS": "".join(map(_findings, record["models"])),
        "PANELS": "".join(f"<figure style='margin:0'>{panel(record, against)}</figure>" for against in AXES),
        "FOOT": html.escape(", ".join(f"{name} {version}" for name, version in record["versions"].items())),
        # Inside a script element nothing but "</" ends it, and JSON may write "<" otherwise.
        "DATA": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
    }
    template = _TEMPLATE.read_text(encoding="utf-8")
    path.write_text(re.sub(r"{{(\w+)}}", lambda place: filled[place[1]], template), encoding="utf-8")


def subtitle(record: dict[str, Any]) -> str:
    """What was measured on what, in a line."""
    data = record["data"]
    split = f" ({data['split']})" if data["split"] else ""
    return f"{record['examples']:,} examples of {data['name']}{split}, measured through bsexport's runtime"


def _cells(model: dict[str, Any], point: dict[str, Any], names: list[str]) -> list[str]:
    dense = point["prune"] is None
    figures = [_figure(point["figures"][name]) for name in names]
    recipe = ["dense", "fp32"] if dense else [f"{point['prune']:.6g}", step_text(point["step"])]
    bits, share, size = (32.0, 1.0, model["fp32_bytes"]) if dense else map(point.get, _SIZES)
    zeros = "" if dense else f"{point['sparsity']:.1%}"
    return [
        model["name"],
        *recipe,
        *figures,
        f"{bits:.3f}",
        f"{share:.2%}",
        f"{size:,}",
        zeros,
        *(_measured(point["bench"][key], unit) for _, key, unit in _BENCH if "bench" in point),
        point["command"],
    ]


def _measured(value: float | None, unit: float) -> str:
    return "" if value is None else f"{value / unit:.4g}"


def _figure(figure: dict[str, float | None]) -> str:
    if None in figure.values():
        return "beyond numbers"
    return f"{figure['value']:.4f} ({figure['low']:.4f}-{figure['high']:.4f})"


def _findings(model: dict[str, Any]) -> str:
    said = "".join(
        f"<li>{html.escape(finding['text'])}"
        + (f"<br><code>{html.escape(finding['command'])}</code>" if finding["command"] else "")
        for finding in model["findings"]
    )
    return f"<h2>{html.escape(model['name'])}</h2><ul>{said}</ul>"
