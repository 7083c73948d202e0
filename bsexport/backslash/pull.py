"""How far the rate pulls each weight at each step: pull = c (|w| + epsilon)^(nu - 1), towards zero."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bsexport.backslash import gaussian, rate, schedule
from bsexport.backslash.measure import magnitude_entropy
from bsexport.backslash.quantile import Histogram
from bsexport.backslash.recipe import Rate
from bsexport.backslash.weights import Weights, local, sample
from bsexport.errors import RecipeError

_LARGEST_FACTOR = 10.0  # of Adam's metric: rows that no batch has touched have no second moment
_SECOND_MOMENT = "exp_avg_sq"  # where torch's optimizers of the Adam family keep it
_ROOTS_SAMPLE = 1 << 18  # weights that the mean root of the second moments is taken from
_SPARSITY_SAMPLE = 1 << 18  # and the strength of a step towards a target sparsity
_BITS_SAMPLE = 1 << 17
_STRENGTHS = (1e-7, 10.0)  # between which that for a target entropy is sought
_BISECTIONS = 12  # to 0.5% of it


@dataclass(frozen=True)
class Law:
    """How far each weight is pulled, at one step: c (|w| + epsilon)^(nu - 1), in Adam's metric times the mean root of
    its tensor's second moments over the weight's own.

    logs: log2 c, exponents: (nu - 1) log2(e), epsilons: scalars for each parameter. moments: no list of tensors, or one
    of second moments like the weights; mean_roots: no tuple of scalars for each parameter, or one.
    """

    logs: tuple[Tensor, ...]
    exponents: tuple[Tensor, ...]
    epsilons: tuple[Tensor, ...]
    moments: list[list[Tensor]]
    mean_roots: list[tuple[Tensor, ...]]

    def at(self, logs: Tensor) -> Law:
        """The same, with another log c for each parameter."""
        return replace(self, logs=_scalars(logs / math.log(2)))

    def pulls(self, indices: list[int], magnitudes: list[Tensor], moments: list[list[Tensor]]) -> list[Tensor]:
        """The pull on each weight of a piece: the parameters' indices, |w| and the second moments of its parts."""
        scalars = ([each[index] for index in indices] for each in (self.logs, self.exponents, self.epsilons))
        made = rate.pulls(magnitudes, *scalars)
        for factors in self._factors(indices, moments):
            torch._foreach_mul_(made, factors)
        return made

    def importances(self, indices: list[int], magnitudes: list[Tensor], moments: list[list[Tensor]]) -> list[Tensor]:
        """In which order the weights of a piece go: by |w|, in Adam's metric over the factor of the pull.

        The magnitudes are used up.
        """
        for factors in self._factors(indices, moments):
            torch._foreach_div_(magnitudes, factors)
        return magnitudes

    def _factors(self, indices: list[int], moments: list[list[Tensor]]) -> Iterator[list[Tensor]]:
        """Of the pull in Adam's metric; none of the plain one."""
        for moment, means in zip(moments, self.mean_roots, strict=True):
            factors = list(torch._foreach_rsqrt(moment))
            torch._foreach_mul_(factors, [means[index] for index in indices])
            torch._foreach_clamp_max_(factors, _LARGEST_FACTOR)
            for factor in factors:
                factor.nan_to_num_(1.0)  # 0 / 0: no gradient has been seen
            yield factors


class Pull:
    """The rate of a recipe on some weights.

    steps: of the optimizer while the rate works. shapes: nu, and unit: the pull at strength 1 of a weight as large as
    the rms: the rms itself, as it was at the start; both float64 [parameters].
    """

    def __init__(self, weights: Weights, recipe: Rate, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self.weights, self.recipe, self.optimizer, self.steps = weights, recipe, optimizer, steps
        self._sizes = weights.sizes()
        self._ramp_sum = schedule.ramp_sum(steps, recipe.ramp)
        self.estimate()
        whole = (self.rms.square() * self._sizes).sum().div(self._sizes.sum()).sqrt()
        self.unit = torch.where(self.rms > 0, self.rms, whole)  # of a tensor that begins as zeros, that of all

    def estimate(self) -> None:
        """Take shape and rms from the weights as they are (equation 8), for each tensor or for all together."""
        sums = self.weights.sums()
        if self.recipe.shape == "tensor":
            means = sums / self._sizes[:, None]
        else:
            means = (sums.sum(0) / self._sizes.sum()).expand_as(sums)
        self.rms = means[:, 1].sqrt()
        if isinstance(self.recipe.shape, str):
            self.shapes = gaussian.shape_by_moments(means[:, 0], means[:, 1])
        else:
            self.shapes = torch.full_like(self.rms, self.recipe.shape)

    def follow(self) -> None:
        """Take them again before the next step, if its law depends on them."""
        if isinstance(self.recipe.shape, str) or self.recipe.weight.kind == "bits":
            self.estimate()

    def loss(self, step: int) -> Tensor:
        """lambda R(w) of equations 5 and 6, of all weights together, differentiable by the parameters.

        Of sharded parameters, the part of this process.
        """
        factors = (torch.exp(self._logs(step)) / self.shapes).float()
        parts = zip(self.weights.differentiable(), self.shapes.float(), self._epsilons().float(), strict=True)
        sums = [rate.power_sum(weights, shape, epsilon) for weights, shape, epsilon in parts]
        return (torch.stack(sums) * factors).sum()

    def apply(self, step: int) -> None:
        """Pull the weights, in place, as hard as the recipe says for a step (from 0)."""
        self._apply(self._law(self._logs(step)))

    def reach_sparsity(self, share: float) -> None:
        """Pull the weights, in place, as hard as it takes for this share of them to be zero at the recipe's step."""
        scores, law = Histogram(self.weights.device), self._law_of_one()
        for _, magnitudes, pulls in self._sample(_SPARSITY_SAMPLE, law):
            scores.add((magnitudes - self.recipe.step / 2).clamp_min_(0) / pulls)
        self._apply(law.at(self._logs_at(scores.quantile(share, self.weights.reduce))))

    def reach_bits(self, bits: float) -> None:
        """Pull the weights, in place, as hard as it takes for this entropy at the recipe's step, in bits/weight.

        The strength is sought by bisection of its logarithm, on a sample and without a transfer to the host.
        """
        law = self._law_of_one()
        indices, magnitudes, pulls = map(torch.cat, zip(*self._sample(_BITS_SAMPLE, law), strict=True))
        low, high = (torch.full((), math.log(strength), device=indices.device) for strength in _STRENGTHS)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            moved = (magnitudes - torch.exp(middle) * pulls).clamp_min_(0)
            above = magnitude_entropy(indices, moved, self.recipe.step, self.weights) > bits
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        self._apply(law.at(self._logs_at(torch.exp(high).double())))

    def check(self) -> None:
        """Raise RecipeError if the optimizer, whose first step is over, has nothing that the metric could take."""
        if self.recipe.metric == "adam":
            self._second_moments()

    def prune(self, share: float) -> None:
        """Set this share of the weights to zero, in place: those that are least, in the metric of the recipe."""
        scores, law = Histogram(self.weights.device), self._law_of_one()
        for _, importances in self._importances(law):
            for importance in importances:
                scores.add(importance)
        limit = scores.quantile(share, self.weights.reduce)
        for piece, importances in self._importances(law):
            for part, importance in zip(piece, importances, strict=True):
                part.masked_fill_(importance < limit, 0)

    def _importances(self, law: Law) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Pieces of the weights, to be changed in place, and in which order they go."""
        for indices, (piece, *moments) in self.weights.pieces(*law.moments):
            yield piece, law.importances(indices, list(torch._foreach_abs(piece)), moments)

    def _apply(self, law: Law) -> None:
        """Pull the weights, in place."""
        for indices, (piece, *moments) in self.weights.pieces(*law.moments):
            magnitudes = list(torch._foreach_abs(piece))
            pulls = law.pulls(indices, magnitudes, moments)
            if self.recipe.form == "proximal":
                rate.proximate(piece, magnitudes, pulls)
            else:
                rate.decouple(piece, pulls)

    def _sample(self, count: int, law: Law) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The parameter's index for each of about so many evenly spaced weights, their magnitudes and their pulls."""
        stride = max(1, self.weights.count // count)
        for indices, parts in self.weights.pieces(*law.moments):
            piece, *moments = [[sample(tensor, stride) for tensor in part] for part in parts]
            magnitudes = list(torch._foreach_abs(piece))
            pulls = law.pulls(indices, magnitudes, moments)
            for index, magnitude, pull in zip(indices, magnitudes, pulls, strict=True):
                yield torch.full_like(magnitude, index, dtype=torch.int64), magnitude, pull

    def _law(self, logs: Tensor) -> Law:
        """The law of this step, with log c for each parameter."""
        exponents, epsilons = _scalars((self.shapes - 1) / math.log(2)), _scalars(self._epsilons())
        if self.recipe.metric == "plain":
            return Law((), exponents, epsilons, [], []).at(logs)
        moments = self._second_moments()
        return Law((), exponents, epsilons, [moments], [_scalars(self._mean_roots(moments))]).at(logs)

    def _second_moments(self) -> list[Tensor]:
        """Adam's second moments, local as the weights are; zeros for a parameter that has none.

        Raises RecipeError if no parameter has any.
        """
        of = [self.optimizer.state.get(parameter, {}).get(_SECOND_MOMENT) for parameter in self.weights.parameters]
        if all(moment is None for moment in of):
            raise RecipeError(
                "metric adam takes the second moments of an optimizer of the Adam family; "
                f"{type(self.optimizer).__name__} has none: use metric plain"
            )
        pairs = zip(of, self.weights.local(), strict=True)
        return [torch.zeros_like(weights) if moment is None else local(moment) for moment, weights in pairs]

    def _mean_roots(self, second: list[Tensor]) -> Tensor:
        """The mean root of Adam's second moments, from a sample: of each tensor or, if the shape is not, of all."""
        stride = max(1, self.weights.count // _ROOTS_SAMPLE)
        roots = [sample(moments, stride).sqrt() for moments in second]
        sums = torch.stack([torch.stack([root.sum(dtype=torch.float64) for root in roots]), self._counts(roots)])
        self.weights.reduce(sums)
        if self.recipe.shape != "tensor":
            sums = sums.sum(1, keepdim=True).expand_as(sums)
        return sums[0] / sums[1].clamp_min(1)

    def _counts(self, tensors: list[Tensor]) -> Tensor:
        return torch.tensor([tensor.numel() for tensor in tensors], dtype=torch.float64, device=self.weights.device)

    def _law_of_one(self) -> Law:
        """The law of this step at strength 1."""
        return self._law(self._logs_at(torch.ones((), dtype=torch.float64, device=self.weights.device)))

    def _epsilons(self) -> Tensor:
        epsilon = self.recipe.epsilon
        return epsilon.value * self.unit if epsilon.relative else torch.full_like(self.unit, epsilon.value)

    def _logs_at(self, strength: Tensor) -> Tensor:
        """log c for a pull of strength times the unit of a weight that is as large as the unit."""
        return torch.log(strength * self.unit) - (self.shapes - 1) * torch.log(self.unit + self._epsilons())

    def _logs(self, step: int) -> Tensor:
        """log c at a step."""
        value, part = self.recipe.weight.value, schedule.ramp(step, self.steps, self.recipe.ramp)
        match self.recipe.weight.kind:
            case "pull":
                return self._logs_at(torch.full_like(self.unit, value * part / self._ramp_sum))
            case "lambda":
                return torch.log(value * part * self.shapes / self.weights.count)
            case "per-weight":
                return torch.log(value * part * self.shapes)
            case _:
                scale = gaussian.bits_scale(self.shapes, self.rms)
                return torch.log(value * part * scale * self.shapes / self.weights.count)


def _scalars(values: Tensor) -> tuple[Tensor, ...]:
    scalars: tuple[Tensor, ...] = values.float().unbind()
    return scalars
