"""Generalized Gaussians fitted to weights, and how far off they are (paper, equations 1 to 4 and 8)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bsexport.backslash import gaussian
from bsexport.backslash.gaussian import LEAST_SHAPE
from bsexport.codebook import Histogram
from bsexport.prune import CHUNK, magnitude_bits

Floats = npt.NDArray[np.float64]

BINS_PER_OCTAVE = 256
_SHIFT = 15  # of a float32's bits, which leaves so many bins to a power of two
_BINS = 1 << (31 - _SHIFT)
_ABOVE = 1.001  # times the least shape: what the search for a maximum cannot tell from it


@dataclass(frozen=True)
class Magnitudes:
    """A histogram of |w| whose bins are 1/256 as wide as their numbers: all that a fit needs of any number of weights.

    counts: int64 [bins]. sums: of the magnitudes in each bin, float64 [bins], so that E|w| is exact; E|w|^nu to 1e-5.
    """

    counts: npt.NDArray[np.int64]
    sums: Floats

    @classmethod
    def of(cls, weights: npt.NDArray[Any]) -> Magnitudes:
        """Count the weights of a tensor, all of them finite."""
        flat, found = weights.reshape(-1), cls.nothing()
        for start in range(0, flat.size, CHUNK):
            bits = magnitude_bits(flat[start : start + CHUNK])
            bins = bits >> _SHIFT
            found.counts[:] += np.bincount(bins, minlength=_BINS)
            found.sums[:] += np.bincount(bins, bits.view(np.float32), minlength=_BINS)
        return found

    @classmethod
    def nothing(cls) -> Magnitudes:
        """The histogram of no weights."""
        return cls(np.zeros(_BINS, np.int64), np.zeros(_BINS))

    def __add__(self, other: Magnitudes) -> Magnitudes:
        """The histogram of both together."""
        return Magnitudes(self.counts + other.counts, self.sums + other.sums)

    def means(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """The mean of each bin that is not empty, and how many weights are in it."""
        there = np.flatnonzero(self.counts)
        return self.sums[there] / self.counts[there], self.counts[there]

    @property
    def mean(self) -> float:
        """E|w|."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def rms(self) -> float:
        """The root of E[w^2]."""
        means, counts = self.means()
        return math.sqrt(float(counts @ means**2) / int(counts.sum()))


@dataclass(frozen=True)
class Fit:
    """A generalized Gaussian about zero, f(x) = nu gamma / (2 Gamma(1/nu)) exp(-(gamma |x|)^nu), beside the weights.

    shape: nu. sigma: its standard deviation. divergence: Kullback-Leibler divergence of the levels' frequencies from
    those that it gives them, in bits/weight: what an ideal code made for it spends on top of the entropy.
    """

    shape: float
    sigma: float
    divergence: float

    @property
    def scale(self) -> float:
        """1 / gamma."""
        return 1 / float(gaussian.inverse_scale(_scalar(self.shape), _scalar(self.sigma)))

    def density(self, x: Floats) -> Floats:
        """f(x)."""
        found: Floats = gaussian.density(torch.from_numpy(x), _scalar(self.shape), _scalar(self.sigma)).numpy()
        return found


FITS = ("moments", "likelihood", "laplace", "gaussian")
"""Generalized Gaussian by moments (equation 8) and by maximum likelihood; Laplace and Gaussian by the latter."""


def fits(magnitudes: Magnitudes, levels: Histogram, step: float) -> dict[str, Fit]:
    """The fits of FITS to weights and, for their divergences, to the levels of the same weights at a step.

    None of them if all weights are zero, which is no distribution of this kind. No "likelihood" where it rises down to
    the least shape that is looked for, as it does where many weights are exactly zero: it has no maximum then.
    """
    if not magnitudes.mean:
        return {}
    means, counts = map(torch.from_numpy, magnitudes.means())
    found = {
        "moments": gaussian.fit(means, counts),
        "likelihood": gaussian.fit_likelihood(means, counts),
        "laplace": (1.0, math.sqrt(2) * magnitudes.mean),
        "gaussian": (2.0, magnitudes.rms),
    }
    if found["likelihood"][0] < LEAST_SHAPE * _ABOVE:
        del found["likelihood"]
    return {name: Fit(*fit, divergence(levels, *fit, step)) for name, fit in found.items()}


def divergence(levels: Histogram, shape: float, sigma: float, step: float) -> float:
    """Kullback-Leibler divergence of the frequencies of levels from those of a generalized Gaussian, in bits."""
    places = torch.from_numpy(levels.levels.astype(np.float64))
    expected = gaussian.log_mass(places, _scalar(shape), _scalar(sigma), step).numpy()
    shares = levels.counts / levels.total
    return max(0.0, float(shares @ (np.log(shares) - expected)) / math.log(2))


def _scalar(number: float) -> torch.Tensor:
    return torch.tensor(number, dtype=torch.float64)
