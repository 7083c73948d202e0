"""The rate of weights under a generalized Gaussian, DGGR (paper, equation 5), and its gradient.

R(w) = (1/N) sum (|w| + epsilon)^nu, with the soft clip epsilon of the paper's gradient; nu and the scale are taken as
constants, as in the paper's update.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_CHUNK = 1 << 18  # weights whose temporaries stay in a processor's cache


def dggr(weights: Tensor, shape: Tensor | float, epsilon: Tensor | float) -> Tensor:
    """R(w) of equation 5 over the elements of one tensor: a scalar that can be differentiated by the weights.

    epsilon: above 0.
    """
    return power_sum(weights, shape, epsilon) / weights.numel()


def power_sum(weights: Tensor, shape: Tensor | float, epsilon: Tensor | float) -> Tensor:
    """sum (|w| + epsilon)^nu, a scalar that can be differentiated by the weights. epsilon: above 0.

    The gradient is nu sign(w) (|w| + epsilon)^(nu - 1). For a parameter without one it is made along with the sum,
    since both take the same logarithm, and becomes its `grad`. For a parameter that has one, and for the shard of one,
    it is made when it is asked for: nothing of the weights' size is kept beside the weights and their gradients.
    """
    along = torch.is_grad_enabled() and weights.requires_grad and weights.is_leaf and weights.grad is None
    total: Tensor = _PowerSum.apply(weights, shape, epsilon, along)
    return total


class _PowerSum(torch.autograd.Function):  # type: ignore[misc]
    """sum (|w| + epsilon)^nu. along: whether the gradient is made along with it."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, shape: Tensor | float, epsilon: Tensor | float, along: bool) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.shape, ctx.epsilon, ctx.slopes = shape, epsilon, None
        if along:
            ctx.slopes = torch.empty_like(weights)
            return _sum_and_slopes(weights, shape, epsilon, ctx.slopes)
        sums = [part.abs().add_(epsilon).log2_().mul_(shape).exp2_().sum() for (part,) in parts(weights)]
        return torch.stack(sums).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (weights,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # what is computed is to be differentiated once more
            powers = (weights.abs() + ctx.epsilon) ** (ctx.shape - 1)
            return ctx.shape * gradients[0] * weights.sign() * powers, None, None, None
        slopes, ctx.slopes = ctx.slopes, None
        if slopes is None:
            slopes = torch.empty_like(weights)
            _sum_and_slopes(weights, ctx.shape, ctx.epsilon, slopes)
        return slopes.mul_(ctx.shape * gradients[0]), None, None, None


def _sum_and_slopes(weights: Tensor, shape: Tensor | float, epsilon: Tensor | float, slopes: Tensor) -> Tensor:
    """sum (|w| + epsilon)^nu; slopes becomes sign(w) (|w| + epsilon)^(nu - 1)."""
    sums = []
    for made, part in parts(slopes, weights):
        clipped = part.abs().add_(epsilon)
        torch.log2(clipped, out=made).mul_(shape - 1).exp2_()
        sums.append(clipped.mul_(made).sum())
        made.mul_(torch.sign(part, out=clipped))
    return torch.stack(sums).sum()


def parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape in flat views, to be computed one after the other: on a processor, each stays in its cache.

    They come whole on an accelerator, or if one is not contiguous.
    """
    if all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in tensors):
        yield from zip(*(tensor.view(-1).split(_CHUNK) for tensor in tensors), strict=True)
    else:
        yield tensors


def pulls(
    magnitudes: list[Tensor], logs: list[Tensor], exponents: list[Tensor], epsilons: list[Tensor]
) -> list[Tensor]:
    """c (|w| + epsilon)^(nu - 1) of each tensor: c times the rate's gradient over nu, without its sign.

    magnitudes: |w|, not changed. logs: log2 c, exponents: (nu - 1) log2(e), epsilons: a scalar tensor of each for each
    of them. (A logarithm and an exponential take a third of the time of a power.)
    """
    made = torch._foreach_add(magnitudes, epsilons)
    torch._foreach_log_(made)
    torch._foreach_mul_(made, exponents)
    torch._foreach_add_(made, logs)
    for tensor in made:
        torch.exp2(tensor, out=tensor)
    return list(made)


def decouple(weights: list[Tensor], pulls: list[Tensor]) -> None:
    """w <- w - sign(w) pull, in place (the update after the optimizer's step in the authors' code)."""
    torch._foreach_mul_(pulls, torch._foreach_sign(weights))
    torch._foreach_sub_(weights, pulls)


def proximate(weights: list[Tensor], magnitudes: list[Tensor], pulls: list[Tensor]) -> None:
    """w <- sign(w) max(|w| - pull, 0), in place: what would cross zero stops there. `magnitudes` is used up."""
    torch._foreach_sub_(magnitudes, pulls)
    torch._foreach_clamp_min_(magnitudes, 0)
    for weight, magnitude in zip(weights, magnitudes, strict=True):
        torch.copysign(magnitude, weight, out=weight)
