"""What has become of the weights: shape, sparsity and entropy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bsexport.backslash import gaussian
from bsexport.backslash.weights import Weights

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
    zeros = torch.zeros(2, dtype=torch.float64, device=weights.device)
    magnitudes = list(sample_magnitudes(weights))
    for _, part in magnitudes:
        zeros += torch.stack([(part < step / 2).sum(), torch.tensor(part.numel(), device=part.device)])
    weights.reduce(zeros)
    return Measurement(
        shape=float(gaussian.shape_by_moments(sums[0], sums[1])),
        sparsity=float(zeros[0] / zeros[1]),
        bits=magnitude_entropy(magnitudes, step, weights),
    )


def sample_magnitudes(weights: Weights) -> Iterable[tuple[int, Tensor]]:
    """Index of the parameter, and magnitudes of evenly spaced weights of it."""
    stride = max(1, weights.count // _SAMPLE)
    for index, local in enumerate(weights.local()):
        yield index, local.flatten()[::stride].abs()


def magnitude_entropy(magnitudes: Iterable[tuple[int, Tensor]], step: float, weights: Weights) -> float:
    """Zeroth-order entropy of levels whose signs are even, in bits/weight: of each parameter's levels, then averaged.

    magnitudes: a parameter's index and some of its magnitudes, any number of times.
    """
    counts = torch.zeros((len(weights.names), _LARGEST_LEVEL + 1), dtype=torch.float64, device=weights.device)
    for index, part in magnitudes:
        levels = torch.round(part / step).clamp_(max=_LARGEST_LEVEL).long()
        counts[index].scatter_add_(0, levels, torch.ones_like(levels, dtype=torch.float64))
    weights.reduce(counts)
    totals = counts.sum(1, keepdim=True).clamp_min(1)
    shares = counts / totals
    bits = -torch.special.xlogy(shares, shares).sum(1) / torch.log(torch.tensor(2.0)) + (1 - shares[:, 0])
    return float((bits * totals[:, 0]).sum() / totals.sum())
