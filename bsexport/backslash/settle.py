"""The settle phase: zeros that stay zero, and forward passes that see rounded weights."""

from __future__ import annotations

from torch import Tensor

from bsexport.backslash.weights import Weights


class Frozen:
    """Keeps weights that are zero before an optimizer's step zero after it.

    There is no state but the weights, so that a run goes on from a checkpoint of them with the same bits.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._zeros: list[Tensor] = []

    def take(self) -> None:
        """Remember which weights are zero."""
        self._zeros = [local == 0 for local in self._weights.local()]

    def put(self) -> None:
        """Make them zero again."""
        for local, zeros in zip(self._weights.local(), self._zeros, strict=False):
            local.masked_fill_(zeros, 0)
        self._zeros = []


class Rounded:
    """Puts the weights' quantised values in their place for a forward and backward pass, and the weights back.

    The gradients at the quantised values are then those of the weights (straight-through estimator).
    """

    def __init__(self, weights: Weights, step: float) -> None:
        self._weights, self._step = weights, step
        self._exact: list[Tensor] = []

    def enter(self) -> None:
        """Round the weights, unless they are."""
        if self._exact:
            return
        local = self._weights.local()
        self._exact = [tensor.clone() for tensor in local]
        for tensor in local:
            tensor.div_(self._step).round_().mul_(self._step)

    def leave(self) -> None:
        """Take the rounding back, if there is one."""
        for tensor, exact in zip(self._weights.local(), self._exact, strict=False):
            tensor.copy_(exact)
        self._exact = []


def zero_below(weights: Weights, limit: float | Tensor) -> None:
    """Set to zero, in place, what is smaller in magnitude than the limit."""
    for _, (piece,) in weights.pieces():
        for part in piece:
            part.masked_fill_(part.abs() < limit, 0)
