"""Plots of a model's weights: the distribution and its fits (the paper's figure 1), codes (table 3), and tensors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bsexport.plotting import style
from bsexport.stats.codes import CODES, PACKED
from bsexport.stats.figures import Figures, Stats, TensorFigures, per_weight
from bsexport.stats.table import code_labels
from bsexport_runtime.fields import printable

FORMATS = ("svg", "png")
_CURVES = (("moments", "generalized Gaussian, shape {:.2f}"), ("laplace", "Laplace"), ("gaussian", "Gaussian"))
_POINTS = 2001
_LEAST_DENSITY = 0.3  # of the log plot, in units of one weight in a bar
_MOST_KINDS = 12  # that get a line of the legend
_NO_DEPTH = -1


def plots(folder: Path, found: Stats, whole: Figures) -> None:
    """Write distribution, codes and tensors in each of FORMATS, the same bytes for the same figures."""
    for name, draw, size in (
        ("distribution", lambda figure: _distribution(figure, found.name, whole), (10, 4)),
        ("codes", lambda figure: _codes(figure, found, whole), (8, 4.5)),
        ("tensors", lambda figure: _tensors(figure, found.tensors), (10, 6)),
    ):
        _save(folder, name, draw, size)


def _save(folder: Path, name: str, draw: Callable[[Any], None], size: tuple[float, float]) -> None:
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        for format in FORMATS:
            when = {"Date": None} if format == "svg" else {}
            figure.savefig(folder / f"{name}.{format}", format=format, metadata=when, dpi=150)


def _distribution(figure: Any, name: str, whole: Figures) -> None:
    """The histogram of all weights with the fits over it, once as it is and once in logarithms."""
    bars = whole.bars
    edges, density = bars.edges, bars.density
    x = np.linspace(edges[0], edges[-1], _POINTS)
    x = x[x != 0]  # where a generalized Gaussian may be as high as it likes
    least = _LEAST_DENSITY / whole.weights / (bars.width * bars.step)
    linear, log = figure.subplots(1, 2)
    for axes, scale in ((linear, "linear"), (log, "log")):
        axes.stairs(density, edges, fill=True, color="lightgrey", label="weights")
        for fit, label in _CURVES:
            if fit in whole.fits:
                found = whole.fits[fit]
                axes.plot(x, found.density(x), label=label.format(found.shape), linewidth=1)
        axes.set(xlabel="weight", ylabel="density", yscale=scale)
        axes.set_ylim(least if scale == "log" else 0, 1.5 * density.max())
    linear.legend(fontsize=8)
    figure.suptitle(f"{printable(name)}: {whole.weights:,} weights")


def _codes(figure: Any, found: Stats, whole: Figures) -> None:
    """Bits/weight of each code, with one codebook and with one for each tensor; a line at the lower entropy."""
    one, each = per_weight(whole.codes.bits, found.weights), per_weight(found.bits, found.weights)
    labels, names = code_labels(whole.codes), [*CODES, PACKED]
    places = np.arange(len(names))
    axes = figure.subplots()
    for bits, offset, label in ((one, -0.2, "one codebook (the paper's)"), (each, 0.2, "a codebook for each tensor")):
        shown = [place for place, name in enumerate(names) if name in bits]
        bars = axes.barh(places[shown] + offset, [bits[names[place]] for place in shown], 0.4, label=label)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes.axvline(each["entropy"], color="grey", linestyle=":")
    axes.set(
        xlabel="bits/weight", yticks=places, yticklabels=[labels[name] for name in names], title=printable(found.name)
    )
    axes.margins(x=0.1)
    axes.invert_yaxis()
    figure.legend(loc="outside lower right", ncols=2)


def _tensors(figure: Any, tensors: tuple[TensorFigures, ...]) -> None:
    """Shape and bits of each tensor against its depth, a line for each kind of tensor."""
    shapes, bits = figure.subplots(2, 1, sharex=True)
    for number, (kind, members) in enumerate(by_kind(tensors).items()):
        label = printable(kind) if number < _MOST_KINDS else None
        depths = [depth for depth, _ in members]
        style = {"marker": "o", "markersize": 3, "linewidth": 1, "label": label}
        fitted = [tensor.figures.fits.get("moments") for _, tensor in members]
        shapes.plot(depths, [np.nan if fit is None else fit.shape for fit in fitted], **style)
        bits.plot(depths, [tensor.bits[PACKED] / tensor.figures.weights for _, tensor in members], **style)
    shapes.set(ylabel="shape, by moments")
    bits.set(ylabel="bits/weight, packed", xlabel="depth: the first number in the tensor's name")
    bits.xaxis.get_major_locator().set_params(integer=True)
    bits.xaxis.set_major_formatter(lambda depth, _: "none" if depth == _NO_DEPTH else f"{depth:.0f}")
    figure.legend(*shapes.get_legend_handles_labels(), loc="outside right upper", fontsize=7)


def by_kind(tensors: tuple[TensorFigures, ...]) -> dict[str, list[tuple[int, TensorFigures]]]:
    """Tensors whose names differ in numbers alone, with the first number, rising: their depth; -1 if there is none."""
    kinds: dict[str, list[tuple[int, TensorFigures]]] = {}
    for tensor in tensors:
        number = re.search(r"\d+", tensor.name)
        depth = int(number.group()) if number else _NO_DEPTH
        kinds.setdefault(re.sub(r"\d+", "N", tensor.name), []).append((depth, tensor))
    return {kind: sorted(members, key=lambda member: member[0]) for kind, members in kinds.items()}
