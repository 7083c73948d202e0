"""The rate at work: what happens to the weights before and after each step of an optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bsexport.backslash import schedule
from bsexport.backslash.measure import Measurement, measure
from bsexport.backslash.pull import Pull
from bsexport.backslash.recipe import Rate
from bsexport.backslash.settle import Frozen, Rounded, zero_below
from bsexport.backslash.weights import Weights
from bsexport.errors import RecipeError, TargetError

_PRUNE_EVERY = 10  # steps, in gradual pruning
_SPARSITY_TOLERANCE = 0.01
_BITS_TOLERANCE = 0.02  # of the target
_FINEST_STEP = 1 / 500  # of the rms: finer ones have more levels than are counted
_ESTIMATING = ("proximal", "decoupled", "loss")


class Constraint:
    """A rate on a model's weights, bound to an optimizer's steps; `attach` makes one.

    Each step is followed by a pull, until the settle phase begins. The rate's shape is estimated before each step's
    forward pass, as in the paper's algorithm 1. The in-loss form pulls nothing: the training loop adds `loss`.

    weights: those that take part. rate: the recipe. steps: of the whole run. done: those that are over.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Rate,
        steps: int,
        state: dict[str, Any] | None = None,
    ) -> None:
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.weights = Weights.of(model, recipe.only, recipe.exempt, trained)
        self.rate, self.steps = recipe, steps
        self.rate_steps = recipe.rate_steps(steps)
        self.pull = Pull(self.weights, recipe, optimizer, self.rate_steps)
        self._check_step()
        if state is None:
            self.done, self._start = 0, self._reached() if recipe.weight.is_target else 0.0
            self._check_target_ahead()
        else:
            self.done, self._start = state["done"], state["start"]
            self.pull.unit = torch.tensor(state["unit"], dtype=torch.float64, device=self.weights.device)
        self._asked_at = -1  # the step whose loss was asked for
        self._frozen, self._rounded = Frozen(self.weights), Rounded(self.weights, recipe.step)
        self._handles = [
            optimizer.register_step_pre_hook(lambda *_: self._before_step()),
            optimizer.register_step_post_hook(lambda optimizer, *_: self._after_step(optimizer)),
            model.register_forward_pre_hook(lambda module, _: self._before_forward(module.training), prepend=True),
        ]

    def detach(self) -> None:
        """Leave model and optimizer alone from now on."""
        self._rounded.leave()
        for handle in self._handles:
            handle.remove()

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside the weights, as plain JSON values."""
        return {"done": self.done, "start": self._start, "unit": self.pull.unit.tolist()}

    @property
    def settling(self) -> bool:
        """Whether the rate has done its work."""
        return self.done >= self.rate_steps

    @property
    def asked(self) -> bool:
        """Whether the loss of this step has been asked for."""
        return self._asked_at == self.done

    def loss(self) -> Tensor:
        """lambda R(w), equations 5 and 6: to be added to the loss of each batch in the in-loss form.

        Of several micro-batches of one step, add it to that of the first. It takes least time and memory where the
        parameters have no gradients yet: let `zero_grad` follow right after the optimizer's step. 0 in the other forms
        and in the settle phase.
        """
        self._asked_at = self.done
        if self.settling or self.rate.form != "loss":
            return torch.zeros((), device=self.weights.device)
        return self.pull.loss(self.done)

    def measure(self) -> Measurement:
        """Shape, sparsity and entropy of the weights as they are now."""
        self._rounded.leave()
        return measure(self.weights, self.rate.step)

    def _before_forward(self, training: bool) -> None:
        if training and self.rate.round and self.settling:
            self._rounded.enter()
        else:
            self._rounded.leave()

    def _before_step(self) -> None:
        self._rounded.leave()
        if self.rate.freeze and (self.settling or self.rate.form == "gradual") and self.rate.form != "none":
            self._frozen.take()

    def _after_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.rate.form == "loss" and not self.settling and not self.asked:
            raise RecipeError(
                "form loss is a part of the loss, and nobody has asked for it: add the constraint's loss() to the loss "
                "of each batch, or take BackSlashMixin into the Trainer"
            )
        self._frozen.put()
        # A fused optimizer leaves a step out by itself when gradients in float16 have overflowed.
        overflow = getattr(optimizer, "found_inf", None)
        if not self.settling and (overflow is None or not float(overflow)):
            self._constrain()
        self.skip()

    def skip(self) -> None:
        """A step is over. Called after each step; for steps that a gradient scaler left out, call it yourself."""
        self._rounded.leave()
        self.done += 1
        try:
            if self.done == self.rate_steps:
                self._begin_to_settle()
        except TargetError:
            self.detach()
            raise
        if not self.settling and self.rate.form in _ESTIMATING:
            self.pull.follow()

    def _constrain(self) -> None:
        kind, form = self.rate.weight.kind, self.rate.form
        if self.done == 0 and form != "none":
            self.pull.check()  # and not when pruning begins, much later
        if form == "gradual" and (self.done % _PRUNE_EVERY == 0 or self.done + 1 == self.rate_steps):
            self.pull.prune(self._wanted(self.done))
        if form not in ("proximal", "decoupled"):
            return
        if kind == "target-sparsity":
            self.pull.reach_sparsity(self._wanted(self.done))
        elif kind == "target-bits":
            self.pull.reach_bits(self._wanted(self.done))
        else:
            self.pull.apply(self.done)

    def _wanted(self, step: int) -> float:
        """Where the target's schedule wants the weights to be after a step."""
        return schedule.approach(step, self.rate_steps, self._start, self.rate.weight.value)

    def _reached(self) -> float:
        """How far the weights are on the way to the target."""
        found = measure(self.weights, self.rate.step)
        return found.bits if self.rate.weight.kind == "target-bits" else found.sparsity

    def _check_step(self) -> None:
        largest = float(self.pull.rms.max())
        if self.rate.step < largest * _FINEST_STEP:
            raise RecipeError(
                f"step {self.rate.step:g} is too fine: the weights have an rms of up to {largest:.3g}; choose one from "
                f"{largest * _FINEST_STEP:.2g} up"
            )

    def _check_target_ahead(self) -> None:
        kind, value = self.rate.weight.kind, self.rate.weight.value
        if (kind == "target-bits" and self._start < value) or (kind == "target-sparsity" and self._start > value):
            raise TargetError(
                f"{kind} {value:g} cannot be reached: the weights are at {self._start:.3f} already, and the rate only "
                "leads away from there; choose a target beyond that"
            )

    def _check_target_reached(self) -> None:
        kind, value, reached = self.rate.weight.kind, self.rate.weight.value, self._reached()
        missed = (
            reached > value * (1 + _BITS_TOLERANCE) if kind == "target-bits" else reached < value - _SPARSITY_TOLERANCE
        )
        if missed:
            raise TargetError(
                f"{kind} {value:g} was not reached: the weights came to {reached:.3f} in {self.rate_steps} steps; "
                "give more steps, or a nearer target"
            )

    def _begin_to_settle(self) -> None:
        weight = self.rate.weight
        if self.rate.form == "none":
            return
        if self.rate.form == "oneshot":
            self.pull.prune(weight.value)
        if weight.is_target:
            self._check_target_reached()
        if self.rate.freeze and self.rate_steps < self.steps:
            zero_below(self.weights, self.rate.step / 2)


def attach(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Rate,
    steps: int,
    state: dict[str, Any] | None = None,
) -> Constraint:
    """Constrain a model's weights while this optimizer trains them: the one line for a training loop of one's own.

    steps: of the optimizer in the whole run, the settle phase included. state: that of the constraint of the run that
    is resumed, whose weights and optimizer's state are loaded already. For the in-loss form, add `loss()` of what is
    returned to each batch's loss. A model that is sharded (fully_shard) or wrapped is attached after that.
    Raises SourceError if no parameter can take part, RecipeError if the settle phase leaves no steps, TargetError if a
    target lies behind; and TargetError from the rate's last step if its target was missed.
    """
    return Constraint(model, optimizer, recipe, steps, state)
