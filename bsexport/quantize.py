"""Uniform quantisation: level = round(weight / step), weight' = level * step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt


def quantize(weights: npt.NDArray[Any], step: float) -> npt.NDArray[np.floating[Any]]:
    """The levels of the weights: round-half-even(float64(w) / float64(step)), of the same shape.

    float64, or where that is the same, float32: dividing that by a power of two rounds nothing. They are whole numbers,
    but may be beyond what the format holds: the caller checks before it narrows them.
    """
    if weights.dtype == np.float32 and math.frexp(step)[0] == 0.5 and 2.0**-100 <= step <= 2.0**100:
        with np.errstate(over="ignore"):  # infinite: beyond all levels
            single = weights * np.float32(1 / step)
        return np.rint(single, out=single)
    levels = weights.astype(np.float64)
    levels /= step
    return np.rint(levels, out=levels)


def dequantize(levels: npt.NDArray[np.int32], step: float) -> npt.NDArray[np.float32]:
    """The weights of the levels: float32(level) * float32(step), one float32 product."""
    return np.multiply(levels, np.float32(step), dtype=np.float32)
