"""The generalized Gaussian distribution that BackSlash models weights with (paper, equations 1 to 4 and 8).

f(x) = C1 exp(-C2 |x|^nu), C1 = nu gamma / (2 Gamma(1/nu)), C2 = gamma^nu, with nu the shape (2: Gaussian, 1: Laplace)
and 1/gamma the scale; gamma = sqrt(Gamma(3/nu) / Gamma(1/nu)) / sigma. Everything is on tensors, of any shape and
device, without a transfer to the host, so that a training step may use it.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

LEAST_SHAPE, GREATEST_SHAPE = 0.05, 10.0
_KNOTS = 257
_NEWTON_STEPS = 4
_SMALL, _LARGE = 1e-4, 500.0  # beyond which incomplete gamma functions are taken from their series
_LEAST_SHARE = 1e-6


def log_ratio(shape: Tensor) -> Tensor:
    """log rho(nu) = log(Gamma(1/nu) Gamma(3/nu) / Gamma(2/nu)^2) = log(E[x^2] / E[|x|]^2) (equation 8)."""
    inverse = 1 / shape
    return torch.lgamma(inverse) + torch.lgamma(3 * inverse) - 2 * torch.lgamma(2 * inverse)


def ratio(shape: Tensor) -> Tensor:
    """rho(nu), equation 8: 2 for a Laplace, pi/2 for a Gaussian; falls as nu grows."""
    return torch.exp(log_ratio(shape))


def shape_of_ratio(ratio: Tensor) -> Tensor:
    """The shape nu for which rho(nu) = ratio, in float64; the nearest of LEAST_SHAPE and GREATEST_SHAPE beyond them.

    A ratio that is no number (of a tensor that is all zeros) gives LEAST_SHAPE.
    """
    wanted = torch.log(ratio.double().nan_to_num(nan=math.inf))
    knots, logs = _table(wanted.device)
    wanted = wanted.clamp(logs[0], logs[-1])
    right = torch.searchsorted(logs, wanted).clamp(1, _KNOTS - 1)
    low, high = logs[right - 1], logs[right]
    guess = knots[right] + (wanted - high) / (low - high) * (knots[right - 1] - knots[right])
    for _ in range(_NEWTON_STEPS):
        shape = torch.exp(guess)
        inverse = 1 / shape
        slope = 4 * torch.digamma(2 * inverse) - torch.digamma(inverse) - 3 * torch.digamma(3 * inverse)
        guess = guess - (log_ratio(shape) - wanted) / (slope * inverse)
    return torch.exp(guess).clamp(LEAST_SHAPE, GREATEST_SHAPE)


@cache
def _table(device: torch.device) -> tuple[Tensor, Tensor]:
    """Knots: log nu, falling, and log rho there, rising; both float64."""
    knots = torch.linspace(math.log(GREATEST_SHAPE), math.log(LEAST_SHAPE), _KNOTS, dtype=torch.float64)
    return knots.to(device), log_ratio(torch.exp(knots)).to(device)


def shape_by_moments(mean_magnitude: Tensor, mean_square: Tensor) -> Tensor:
    """The shape whose E[x^2] / E[|x|]^2 is that of the data (equation 8). Moments about zero; float64."""
    return shape_of_ratio(mean_square.double() / mean_magnitude.double().square())


def inverse_scale(shape: Tensor, sigma: Tensor) -> Tensor:
    """gamma of equation 2, for a standard deviation sigma."""
    return torch.exp((torch.lgamma(3 / shape) - torch.lgamma(1 / shape)) / 2) / sigma


def moments(shape: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """E[|x|] and E[x^2], whose ratio is that of equation 8."""
    mean = torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape)) / inverse_scale(shape, sigma)
    return mean, sigma.square()


def log_density(x: Tensor, shape: Tensor, sigma: Tensor) -> Tensor:
    """Natural logarithm of f(x), equation 1."""
    gamma = inverse_scale(shape, sigma)
    return torch.log(shape * gamma / 2) - torch.lgamma(1 / shape) - (gamma * x.abs()) ** shape


def density(x: Tensor, shape: Tensor, sigma: Tensor) -> Tensor:
    """f(x), equation 1."""
    return torch.exp(log_density(x, shape, sigma))


def rate(x: Tensor, shape: Tensor, sigma: Tensor, step: float) -> Tensor:
    """Bits that an ideal code spends on x quantised with this step: -log2(step f(x)) (equations 3 and 4)."""
    return -(log_density(x, shape, sigma) + math.log(step)) / math.log(2)


def bits_scale(shape: Tensor, sigma: Tensor) -> Tensor:
    """gamma^nu log2(e): times |x|^nu, the part of `rate` that depends on x, in bits."""
    return inverse_scale(shape, sigma) ** shape / math.log(2)


def log_mass(levels: Tensor, shape: Tensor, sigma: Tensor, step: float) -> Tensor:
    """Natural logarithm of the share of x that this step quantises to each level, exactly (equation 3): the integral
    of f from (level - 1/2) step to (level + 1/2) step. levels: whole numbers, float64."""
    edges = (levels.abs() + torch.tensor([[-0.5], [0.5]], dtype=torch.float64)).clamp(min=0)
    near, far = (edges * step * inverse_scale(shape, sigma)) ** shape
    beyond_near, beyond_far = _log_upper_gamma(1 / shape, near), _log_upper_gamma(1 / shape, far)
    share = -torch.expm1(beyond_far - beyond_near)
    # Where a step is next to nothing the difference has no digits left, but then f is constant over the step.
    sides = torch.where(
        share > _LEAST_SHARE,
        beyond_near + torch.log(share) - math.log(2),
        log_density(levels * step, shape, sigma) + math.log(step),
    )
    return torch.where(levels == 0, _log_lower_gamma(1 / shape, far), sides)


def _log_upper_gamma(a: Tensor, z: Tensor) -> Tensor:
    """log(Gamma(a, z) / Gamma(a)), by the asymptotic series where the value itself would underflow."""
    large = z.clamp(min=_LARGE)
    series = (a - 1) * torch.log(large) - large - torch.lgamma(a) + torch.log1p((a - 1) / large)
    return torch.where(z < _LARGE, torch.log(torch.special.gammaincc(a, z.clamp(max=_LARGE))), series)


def _log_lower_gamma(a: Tensor, z: Tensor) -> Tensor:
    """log(1 - Gamma(a, z) / Gamma(a)), by the power series where the value itself would underflow."""
    small = z.clamp(max=_SMALL)
    series = a * torch.log(small) - torch.lgamma(a + 1) + torch.log1p(-small * a / (a + 1))
    return torch.where(z > _SMALL, torch.log(torch.special.gammainc(a, z.clamp(min=_SMALL))), series)


def fit(x: Tensor, counts: Tensor | None = None) -> tuple[float, float]:
    """Shape and standard deviation by moments, of all elements together; each counts once, or as often as it says."""
    magnitudes, shares = _shares(x, counts)
    mean, square = shares @ magnitudes, shares @ magnitudes.square()
    return float(shape_by_moments(mean, square)), float(square.sqrt())


def fit_likelihood(x: Tensor, counts: Tensor | None = None) -> tuple[float, float]:
    """Shape and standard deviation of maximum likelihood, the shape between LEAST_SHAPE and GREATEST_SHAPE.

    For a given shape the best scale is known: gamma^-nu = nu mean|x|^nu; the shape is sought in one dimension.
    It is the least one where many numbers are exactly zero, since the density may be as high as it likes there.
    """
    from scipy.optimize import minimize_scalar

    magnitudes, shares = _shares(x, counts)

    def loss(log_shape: float) -> float:
        shape = math.exp(log_shape)
        log_scale = math.log(shape * float(shares @ magnitudes**shape)) / shape
        return log_scale + math.lgamma(1 / shape) - log_shape + 1 / shape

    bounds = (math.log(LEAST_SHAPE), math.log(GREATEST_SHAPE))
    shape = math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x)
    scale = (shape * float(shares @ magnitudes**shape)) ** (1 / shape)
    return shape, scale * math.exp((math.lgamma(3 / shape) - math.lgamma(1 / shape)) / 2)


def _shares(x: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    """The magnitudes and which share of the whole each is, float64 [n]."""
    magnitudes = x.detach().double().abs().flatten()
    times = torch.ones_like(magnitudes) if counts is None else counts.double().flatten()
    return magnitudes, times / times.sum()
