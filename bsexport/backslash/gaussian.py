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


def fit(x: Tensor) -> tuple[float, float]:
    """Shape and standard deviation by moments, of all elements together."""
    magnitudes = x.detach().double().abs()
    mean, square = magnitudes.mean(), magnitudes.square().mean()
    return float(shape_by_moments(mean, square)), float(square.sqrt())


def fit_likelihood(x: Tensor) -> tuple[float, float]:
    """Shape and standard deviation of maximum likelihood, the shape between LEAST_SHAPE and GREATEST_SHAPE.

    For a given shape the best scale is known: gamma^-nu = nu mean|x|^nu; the shape is sought in one dimension.
    """
    from scipy.optimize import minimize_scalar

    magnitudes = x.detach().double().abs().flatten()

    def loss(log_shape: float) -> float:
        shape = math.exp(log_shape)
        log_scale = math.log(shape * float((magnitudes**shape).mean())) / shape
        return log_scale + math.lgamma(1 / shape) - log_shape + 1 / shape

    bounds = (math.log(LEAST_SHAPE), math.log(GREATEST_SHAPE))
    shape = math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x)
    scale = (shape * float((magnitudes**shape).mean())) ** (1 / shape)
    return shape, scale * math.exp((math.lgamma(3 / shape) - math.lgamma(1 / shape)) / 2)
