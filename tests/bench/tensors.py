"""What the codec is measured on: tensors of levels, synthetic ones and those of a real model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport import codebook, prune
from bsexport.quantize import quantize
from bsexport.recipe import why_too_small

SHAPES = (0.15, 0.3, 0.6, 1.0, 1.4)
SPEED_SHAPE, SPEED_ZEROS = 0.6, (0.8, 0.9, 0.95)
ZEROS = (0.1, 0.5, 0.8, 0.9, 0.95, 0.99)
RECIPES = ((0.8, 1e-3), (0.8, 4e-3), (0.9, 1e-3), (0.9, 4e-3), (0.5, 4e-3), (0.0, 1e-3), (0.0, 4e-3))


@dataclass(frozen=True)
class Levels:
    """Some tensors of levels, each in the narrowest of int8, int16 and int32 that holds it."""

    name: str
    tensors: tuple[npt.NDArray[np.signedinteger[Any]], ...]

    @property
    def weights(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    def entropy(self) -> float:
        """Zeroth-order entropy, per tensor, in bits."""
        return sum(codebook.count(tensor.astype(np.int32)).entropy() for tensor in self.tensors)

    def zeros(self) -> float:
        return sum(tensor.size - np.count_nonzero(tensor) for tensor in self.tensors) / self.weights


def synthetic(side: int) -> Iterator[Levels]:
    """side x side weights of each shape and share of zeros.

    Where speeds are compared it is sixteen times as many, so that what a call costs does not count.
    """
    for shape in SHAPES:
        for zeros in ZEROS:
            compared = shape == SPEED_SHAPE and zeros in SPEED_ZEROS
            yield drawn(shape, zeros, 4 * side if compared else side)


def drawn(shape: float, zeros: float, side: int) -> Levels:
    """A generalised Gaussian, quantised so that so many weights become 0: side x side of them."""
    random = np.random.default_rng([int(100 * shape), int(100 * zeros)])
    magnitudes = random.gamma(1 / shape, size=side * side) ** (1 / shape)
    signs = random.integers(0, 2, side * side) * 2 - 1
    half_step = np.quantile(magnitudes, zeros)
    levels = np.rint(magnitudes / (2 * half_step)) * signs
    return Levels(f"GG {shape:g}, {zeros:.0%} zeros", (narrowest(levels.reshape(side, side)),))


def of_model(name: str, weights: Path) -> Iterator[Levels]:
    """The levels of a model's coded tensors under every recipe."""
    return (pruned(name, weights, ratio, step) for ratio, step in RECIPES)


def pruned(name: str, weights: Path, ratio: float, step: float) -> Levels:
    """The levels of a model's coded tensors after global magnitude pruning, as `bsexport pack` makes them.

    weights: a safetensors file. Its tensors of two or more dimensions and 1024 or more elements are taken.
    """
    from safetensors.numpy import load_file

    tensors = {
        key: value.astype(np.float32)
        for key, value in load_file(weights).items()
        if np.issubdtype(value.dtype, np.floating) and not why_too_small(value.shape)
    }
    limit = prune.threshold([(key, lambda value=value: value) for key, value in tensors.items()], ratio)
    kept = [prune.prune(value.copy(), limit)[0] if ratio else value for value in tensors.values()]
    levels = tuple(narrowest(quantize(value, float(np.float32(step)))) for value in kept)
    return Levels(f"{name} pruned {ratio:.0%}, step {step:g}", levels)


def narrowest(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.signedinteger[Any]]:
    largest = int(np.abs(levels).max())
    kind = np.int8 if largest < 1 << 7 else np.int16 if largest < 1 << 15 else np.int32
    return levels.astype(kind)
