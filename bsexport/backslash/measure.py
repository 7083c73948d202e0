"""What has become of the weights: shape, sparsity and entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bsexport.backslash import gaussian
from bsexport.backslash.weights import Weights, sample

_SAMPLE = 1 << 20  # weights that are looked at while a run goes on
_LARGEST_LEVEL = 4095  # larger ones are counted as this


@dataclass(frozen=True)
class Measurement:
    """The weights that take part, at one time.

    shape: nu of all of them together (equation 8). sparsity: share with |w| < step / 2. bits: zeroth-order entropy of
    each tensor's levels at that step, in bits/weight. Sparsity and bits are of evenly spaced weights.
    """

    shape: float
    sparsity: float
    bits: float


def measure(weights: Weights, step: float) -> Measurement:
    """Look at the weights as they are, with this quantiser step."""
    sums = weights.sums().sum(0) / weights.count
    stride = max(1, weights.count // _SAMPLE)
    parts = [sample(local, stride).abs() for local in weights.local()]
    indices = torch.cat([torch.full_like(part, index, dtype=torch.int64) for index, part in enumerate(parts)])
    magnitudes = torch.cat(parts)
    zeros = torch.stack([(magnitudes < step / 2).sum(), torch.tensor(magnitudes.numel(), device=weights.device)])
    found, looked_at = weights.reduce(zeros)
    return Measurement(
        shape=float(gaussian.shape_by_moments(sums[0], sums[1])),
        sparsity=float(found / looked_at),
        bits=float(magnitude_entropy(indices, magnitudes, step, weights)),
    )


def magnitude_entropy(indices: Tensor, magnitudes: Tensor, step: float, weights: Weights) -> Tensor:
    """Zeroth-order entropy of levels whose signs are even, in bits/weight: of each parameter's levels, then averaged.

    indices: of each magnitude's parameter, int64. The result is a scalar; it is that of all shards.
    """
    levels = torch.round(magnitudes / step).nan_to_num_(0).clamp_(max=_LARGEST_LEVEL).long()
    counts = torch.zeros(len(weights.names) * (_LARGEST_LEVEL + 1), dtype=torch.float64, device=weights.device)
    counts.scatter_add_(0, indices * (_LARGEST_LEVEL + 1) + levels, torch.ones_like(levels, dtype=torch.float64))
    counts = weights.reduce(counts).view(len(weights.names), -1)
    totals = counts.sum(1)
    # n levels of entropy H take n H = n log2 n - sum of c log2 c bits, c the count of each. In float32, the logarithms
    # of the counts take a third of the time.
    spread = (counts * counts.float().clamp_min(1).log2()).sum(1)
    bits = torch.special.xlogy(totals, totals) / math.log(2) - spread + totals - counts[:, 0]  # a sign has one
    return (bits.sum() / totals.sum()).clamp_min(0)
