"""stats(): the straight line from weights to figures. Read this first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport import codebook, layout
from bsexport.code import CodedTensor, Memory, Tensor, code
from bsexport.codebook import Histogram
from bsexport.layout import Allowed
from bsexport.pipeline import Part, Progress, Pruned, counter, take_part, threshold
from bsexport.recipe import Recipe
from bsexport.slabs import Workers
from bsexport.stats.codes import PACKED, codes_of, layout_bits
from bsexport.stats.figures import Bars, Figures, Stats, TensorFigures
from bsexport.stats.fit import Magnitudes, fits
from bsexport.stats.source import Weights
from bsexport_runtime import codec


def stats(model: Weights, recipe: Recipe, *, threads: int = 1, progress: Progress = lambda stage, share: None) -> Stats:
    """What the weights are like that pack would code by this recipe, after pruning, and what codes make of them.

    Tensors are read one at a time, so that memory stays near the largest tensor. Shapes are fitted to the weights, by a
    histogram of all their magnitudes that is fine enough for it; everything else is of their levels.
    Raises RecipeError for a glob that matches no tensor, SourceError for weights that are no numbers.
    """
    parts = take_part(model.weights, recipe)
    limits = layout.allowed(recipe.layout, recipe.family, recipe.order)
    tensors: list[TensorFigures] = []
    uncoded: dict[str, str] = {}
    levels, magnitudes = codebook.EMPTY, Magnitudes.nothing()
    with Workers(threads) as workers:
        limit = left = threshold(parts, recipe, workers.each, progress)
        done = counter("counting", sum(part.weight.size for part in parts), progress)
        for part in parts:
            why = part.why
            if not why:
                pruned = Pruned(part, recipe, left, workers.each)
                left = pruned.left
                weights = np.concatenate(list(workers.each(pruned.read, pruned.slabs)))
                memory = Memory()
                coded = code(_tensor(part, weights), recipe.step, limits, memory, workers.each)
                why = coded.why
            if why:
                uncoded[part.weight.name] = why
            elif coded.symbols is not None:
                own = Magnitudes.of(weights)
                blob = memory.blob(coded.placed)
                tensors.append(tensor_figures(part, coded, blob, coded.symbols, own, recipe.step, limits))
                levels, magnitudes = codebook.merge([levels, coded.symbols]), magnitudes + own
            done(part.weight.size)
    whole = figures(levels, magnitudes, recipe.step) if tensors else None
    return Stats(model.name, recipe, limit.magnitude, whole, tuple(tensors), uncoded)


def _tensor(part: Part, weights: npt.NDArray[Any]) -> Tensor:
    """A pruned tensor that is in memory."""
    return Tensor(part.weight.name, part.weight.shape, weights.dtype, lambda slab: weights[slab.begin : slab.end])


def tensor_figures(
    part: Part,
    coded: CodedTensor,
    blob: memoryview,
    symbols: Histogram,
    magnitudes: Magnitudes,
    step: float,
    limits: Allowed,
) -> TensorFigures:
    """The figures of a tensor that was just coded. symbols: its histogram in the order of the symbols."""
    blob_bits = layout_bits(symbols, codec.decode_levels(blob), limits) | {PACKED: 8 * len(blob)}
    name = coded.head.layout.name
    found = figures(symbols, magnitudes, step)
    return TensorFigures(part.weight.name, part.weight.shape, part.pruned, name, found, blob_bits)


def figures(levels: Histogram, magnitudes: Magnitudes, step: float) -> Figures:
    """The figures of weights that share one codebook, of their magnitudes and of their levels at a step."""
    return Figures(
        weights=levels.total,
        zeros=levels.zeros,
        distinct=levels.levels.size,
        rms=magnitudes.rms,
        fits=fits(magnitudes, levels, step),
        codes=codes_of(levels),
        bars=Bars.of(levels, step, magnitudes.rms),
    )
