"""curve.png and curve.svg: the primary figure against pruning and against size, with its intervals."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from bsexport.plotting import style
from bsexport.recipe import step_text

PLOTS = ("curve.svg", "curve.png")
AXES = {"prune": "share of the weights pruned", "bits_per_weight": "bits/weight, everything counted"}
"""What a panel shows the figure against: key of a point -> label."""

_PANEL = (4.8, 3.6)  # inches


def lines(record: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The lines of a plot: label, points. One for each model and step; for each ratio, if it has but one ratio."""
    for model in record["models"]:
        points = model["points"][1:]
        steps, ratios = ({point[key] for point in points} for key in ("step", "prune"))
        key = "step" if len(ratios) > 1 or len(steps) == 1 else "prune"
        for value in sorted({point[key] for point in points}, reverse=key == "step"):
            label = model["name"]
            if len({point[key] for point in points}) > 1:
                label += f", step {step_text(value)}" if key == "step" else f", {100 * value:.4g}% pruned"
            yield label, [point for point in points if point[key] == value]


def write_plots(folder: Path, record: dict[str, Any]) -> None:
    """Draw both panels side by side, the same SVG for the same record."""
    for name in PLOTS:
        with style():
            from matplotlib.figure import Figure

            figure = Figure(figsize=(2 * _PANEL[0], _PANEL[1]), layout="constrained", dpi=150)
            for axes, against in zip(figure.subplots(1, 2), AXES, strict=True):
                draw(axes, record, against)
            metadata = {"Date": None} if name.endswith("svg") else None
            figure.savefig(folder / name, metadata=metadata)


def panel(record: dict[str, Any], against: str) -> str:
    """One panel as SVG, with an id for each line's markers: AGAINST-LINE."""
    with style(against):
        from matplotlib.figure import Figure

        figure, text = Figure(figsize=_PANEL, layout="constrained"), StringIO()
        draw(figure.subplots(), record, against)
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def draw(axes: Any, record: dict[str, Any], against: str) -> None:
    """Draw the primary figure, in percent, against a key of AXES; dotted: the dense models."""
    primary = record["primary"]
    for index, (label, points) in enumerate(lines(record)):
        ordered = sorted(points, key=lambda point: point[against])
        x = [100 * point["prune"] if against == "prune" else point[against] for point in ordered]
        value, low, high = (
            [100 * point["figures"][primary][part] for point in ordered] for part in ("value", "low", "high")
        )
        (line,) = axes.plot(x, value, linewidth=1, label=_shown(label))
        axes.fill_between(x, low, high, alpha=0.2, linewidth=0, color=line.get_color())
        axes.scatter(x, value, s=16, color=line.get_color(), gid=f"{against}-{index}", zorder=3)
    for model in record["models"]:
        dense = 100 * model["points"][0]["figures"][primary]["value"]
        axes.axhline(dense, color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel=AXES[against] + (", %" if against == "prune" else ""), ylabel=f"{primary}, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _shown(label: str) -> str:
    """A label that matplotlib shows: it leaves out those with "_" in front."""
    return f" {label}" if label.startswith("_") else label
