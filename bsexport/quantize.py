"""Uniform quantisation: level = round(weight / step), weight' = level * step."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def quantize(weights: npt.NDArray[Any], step: float) -> npt.NDArray[np.float64]:
    """The levels of the weights: round-half-even(float64(w) / float64(step)), as float64 of the same shape.

    They are whole numbers, but may be beyond what the format holds: the caller checks before it narrows them.
    """
    levels = weights.astype(np.float64)
    levels /= step
    return np.rint(levels, out=levels)


def dequantize(levels: npt.NDArray[np.int32], step: float) -> npt.NDArray[np.float32]:
    """The weights of the levels: float32(level) * float32(step), one float32 product."""
    return np.multiply(levels, np.float32(step), dtype=np.float32)
