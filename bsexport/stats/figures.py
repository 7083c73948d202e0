"""The figures of some weights, and of a model's: what goes into the table, the files and the plots."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport.codebook import Histogram
from bsexport.recipe import Recipe
from bsexport.stats.codes import CODES, LAYOUTS, PACKED, Codes
from bsexport.stats.fit import BINS_PER_OCTAVE, FITS, Fit

FORMAT = "bsexport weight statistics"
VERSION = 0
WIDEST = 8  # rms on each side that bars cover
MOST_BARS = 100  # on each side of the middle one


@dataclass(frozen=True)
class Bars:
    """A histogram for people: bars of `width` levels each, an odd number, the middle one about zero.

    step: of the levels. counts: weights in each bar, int64, an odd number of bars. outside: weights beyond them all.
    """

    step: float
    width: int
    counts: npt.NDArray[np.int64]
    outside: int

    @classmethod
    def of(cls, levels: Histogram, step: float, rms: float) -> Bars:
        """The bars of levels up to WIDEST times the rms of their weights, at most 2 MOST_BARS + 1 of them."""
        largest = min(int(np.abs(levels.levels.astype(np.int64)).max()), int(np.ceil(WIDEST * rms / step)))
        beside = max(0, -(-(largest - MOST_BARS) // (2 * MOST_BARS + 1)))  # levels on each side of a bar's middle
        width = 2 * beside + 1
        half = -(-max(0, largest - beside) // width)
        bars = np.rint(levels.levels / width).astype(np.int64) + half
        inside = (bars >= 0) & (bars <= 2 * half)
        counts = np.zeros(2 * half + 1, np.int64)
        np.add.at(counts, bars[inside], levels.counts[inside])
        return cls(step, width, counts, levels.total - int(counts.sum()))

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Between bars, and at both ends, as weights: float64 [bars + 1]."""
        edges: npt.NDArray[np.float64] = np.arange(self.counts.size + 1, dtype=np.float64) - self.counts.size / 2
        edges *= self.width * self.step
        return edges

    @property
    def density(self) -> npt.NDArray[np.float64]:
        """The share of all weights in each bar, over its width: float64 [bars]."""
        share = self.counts / (self.counts.sum() + self.outside)
        density: npt.NDArray[np.float64] = share / (self.width * self.step)
        return density


@dataclass(frozen=True)
class Figures:
    """Of weights that share one codebook.

    distinct: levels in use. rms: of the weights before they are quantised. fits: by name, of FITS; none if all are
    zero. codes: bits by code.
    """

    weights: int
    zeros: int
    distinct: int
    rms: float
    fits: dict[str, Fit]
    codes: Codes
    bars: Bars

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values; bits are per weight."""
        return {
            "weights": self.weights,
            "zeros": self.zeros,
            "distinct": self.distinct,
            "rms": self.rms,
            "fits": {name: {**asdict(fit), "scale": fit.scale} for name, fit in self.fits.items()},
            "bits": per_weight(self.codes.bits, self.weights),
            "eg_order": self.codes.eg_order,
            "rice_order": self.codes.rice_order,
            "histogram": {**asdict(self.bars), "counts": self.bars.counts.tolist()},
        }


@dataclass(frozen=True)
class TensorFigures:
    """Of a tensor that pack codes.

    pruned: whether it took part in pruning. layout: that pack chooses. blob_bits: of its blob in each of LAYOUTS, and
    as PACKED of the one that pack writes.
    """

    name: str
    shape: tuple[int, ...]
    pruned: bool
    layout: str
    figures: Figures
    blob_bits: dict[str, float]

    @property
    def bits(self) -> dict[str, float]:
        """Bits by code and by layout, of all its weights together."""
        return {**self.figures.codes.bits, **self.blob_bits}

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values; bits are per weight."""
        figures = self.figures.to_json()
        figures["bits"] = per_weight(self.bits, self.figures.weights)
        return {"name": self.name, "dims": self.shape, "pruned": self.pruned, "layout": self.layout, **figures}


@dataclass(frozen=True)
class Stats:
    """Of a model.

    threshold: magnitude up to which weights were pruned, where the scope is the whole model. whole: of all coded
    weights with one codebook, as in the paper; None if there are none. tensors: with a codebook each, as in a package.
    uncoded: name of each other tensor, and why.
    """

    name: str
    recipe: Recipe
    threshold: float
    whole: Figures | None
    tensors: tuple[TensorFigures, ...]
    uncoded: dict[str, str]

    @property
    def bits(self) -> dict[str, float]:
        """Bits by code and by layout of all tensors, with a codebook each."""
        return {name: sum(tensor.bits[name] for tensor in self.tensors) for name in (*CODES, *LAYOUTS, PACKED)}

    @property
    def weights(self) -> int:
        """How many weights are coded."""
        return sum(tensor.figures.weights for tensor in self.tensors)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values; bits are per weight."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.name,
            "recipe": self.recipe.to_json(),
            "threshold": self.threshold,
            "fitted_on": f"a histogram of all magnitudes, {BINS_PER_OCTAVE} bins to a power of two",
            "whole": self.whole and self.whole.to_json(),
            "per_tensor_bits": per_weight(self.bits, self.weights),
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "uncoded": self.uncoded,
        }

    def rows(self) -> list[dict[str, Any]]:
        """A line of a table for all weights with one codebook, one for all with a codebook each, and one a tensor."""
        if self.whole is None:
            return []
        sums = per_weight(self.bits, self.weights)
        found = [
            ("all, one codebook", "", "", self.whole, per_weight(self.whole.codes.bits, self.weights)),
            ("all, a codebook each", "", "", self.whole, sums),
        ]
        for tensor in self.tensors:
            shape = "x".join(map(str, tensor.shape))
            bits = per_weight(tensor.bits, tensor.figures.weights)
            found.append((tensor.name, shape, tensor.layout, tensor.figures, bits))
        return [_row(*line) for line in found]


def _row(name: str, shape: str, layout: str, figures: Figures, bits: dict[str, float]) -> dict[str, Any]:
    row: dict[str, Any] = {"tensor": name, "dims": shape, "layout": layout}
    row |= {key: getattr(figures, key) for key in ("weights", "zeros", "distinct", "rms")}
    for fit in FITS:
        for key in ("shape", "scale", "divergence"):
            row[f"{fit}_{key}"] = getattr(figures.fits.get(fit), key, "")
    return row | {code: bits.get(code, "") for code in (*CODES, *LAYOUTS, PACKED)}


def per_weight(bits: dict[str, float], weights: int) -> dict[str, float]:
    """Bits of each code over the number of weights; nothing of no weights."""
    return {name: total / weights for name, total in bits.items()} if weights else {}
