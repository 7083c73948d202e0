"""Quantiles of numbers that lie in many tensors and processes, by a histogram: no sort, no transfer to the host."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SHIFT = 15  # of a float32's bits: 65536 bins, 256 to a power of two
_BINS = 1 << (31 - _SHIFT)


class Histogram:
    """Counts of numbers from 0 up. Bins are as wide as 1/256 of their numbers, so that a quantile is as exact."""

    def __init__(self, device: torch.device) -> None:
        self._counts = torch.zeros(_BINS, dtype=torch.float64, device=device)

    def add(self, numbers: Tensor) -> None:
        """Count the numbers of a tensor, none of them below 0."""
        bins = numbers.flatten().float().view(torch.int32).bitwise_right_shift(_SHIFT).long()
        self._counts.scatter_add_(0, bins, torch.ones_like(bins, dtype=torch.float64))

    def quantile(self, share: Tensor | float, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """The number that this share of all is at most; float32. reduce: adds up the counts of all processes."""
        sums = torch.cumsum(reduce(self._counts.clone()), 0)
        rank = share * sums[-1]
        index = torch.searchsorted(sums, rank.reshape(1)).clamp(max=_BINS - 1)
        below = torch.where(index > 0, sums[index - 1], 0)
        edges = torch.stack([index, index + 1]).int().bitwise_left_shift(_SHIFT).view(torch.float32)
        inside = (rank - below) / (sums[index] - below).clamp_min(1)
        return (edges[0] + inside.clamp(0, 1).float() * (edges[1] - edges[0])).squeeze()
