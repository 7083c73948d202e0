"""BackSlash in a transformers Trainer: a callback that follows its optimizer, and a mixin for what enters the loss.

`Trainer(..., callbacks=[BackSlashCallback(Rate(...))])`, or `class BackSlashTrainer(BackSlashMixin, Trainer)` and then
`BackSlashTrainer(..., rate=Rate(...), teacher=model)`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from bsexport.backslash.constraint import Constraint
from bsexport.backslash.recipe import Rate
from bsexport.errors import RecipeError


class BackSlashCallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Constrains the model of a Trainer while it trains. For form "loss" use BackSlashMixin, which adds this itself.

    A Trainer's own reports (TensorBoard) stand before it, and have its figures only with BackSlashMixin.

    rate: the recipe. constraint: the rate at work, from the beginning of training on. history: a row of figures each
    time the Trainer logs its loss: step, loss, shape, sparsity and bits (see Measurement); the Trainer's logs have
    them too. State and history are kept in checkpoints.
    """

    def __init__(self, rate: Rate | dict[str, Any]) -> None:
        self.rate = rate if isinstance(rate, Rate) else Rate.from_json(rate)
        self.constraint: Constraint | None = None
        self.history: list[dict[str, float]] = []

    def state(self) -> dict[str, Any]:
        """What transformers writes into a checkpoint, and makes this callback of again."""
        saved = self.constraint.state() if self.constraint else None
        return {"args": {"rate": self.rate.to_json()}, "attributes": {"saved": saved, "history": self.history}}

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, optimizer: Any, **_: Any
    ) -> None:
        """Attach to the model and the optimizer, where the checkpoint left off if there is one."""
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper runs no hooks of its own
        of_a_checkpoint = state.stateful_callbacks if state.global_step else {}  # or of an earlier run
        saved = of_a_checkpoint.get(type(self).__name__, {}).get("attributes", {})
        if state.global_step and not saved.get("saved"):
            raise RecipeError("the checkpoint holds no state of the rate: it is of a run without it")
        self.history = saved.get("history", [])
        if self.constraint is not None:
            self.constraint.detach()
        self.constraint = Constraint(model, inner, self.rate, state.max_steps, saved.get("saved"))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep up with steps that a gradient scaler left out, of which an optimizer knows nothing."""
        while self.constraint is not None and self.constraint.done < state.global_step:
            self.constraint.skip()

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **_: Any) -> None:
        """Add the figures to the Trainer's logs."""
        if self.constraint is None or "loss" not in logs:
            return
        figures = asdict(self.constraint.measure())
        logs |= figures
        state.log_history[-1] |= figures
        self.history.append({"step": state.global_step, "loss": logs["loss"], **figures})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Detach; the constraint still measures."""
        if self.constraint is not None:
            self.constraint.detach()


class BackSlashMixin:
    """Goes before Trainer in a class's bases: the in-loss form (equation 7), and distillation.

    The first loss that is computed for a step has the rate; those of its other micro-batches have none.

    Keyword arguments, beside Trainer's:
    rate: the recipe, of any form. teacher: a trained model of the same task and labels, or None.
    temperature: of the distillation. distil: its share of the loss, 0 to 1; the rest is the task's.
    """

    def __init__(
        self,
        *args: Any,
        rate: Rate,
        teacher: nn.Module | None = None,
        temperature: float = 2.0,
        distil: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.temperature, self.distil = temperature, distil
        self.teacher = teacher.to(self.args.device).eval() if teacher is not None else None  # type: ignore[attr-defined]
        self.callback_handler.callbacks.insert(0, BackSlashCallback(rate))  # type: ignore[attr-defined]  # before those that report

    def _load_callback_state(self) -> None:
        """As Trainer's, which puts the rate's callback last: it goes first again, before what reports its figures."""
        super()._load_callback_state()  # type: ignore[misc]
        callbacks, rate = self.callback_handler.callbacks, self.backslash  # type: ignore[attr-defined]
        self.callback_handler.callbacks = [rate, *(each for each in callbacks if each is not rate)]  # type: ignore[attr-defined]

    @property
    def backslash(self) -> BackSlashCallback:
        """The callback; another one after a checkpoint was loaded."""
        callbacks = self.callback_handler.callbacks  # type: ignore[attr-defined]
        return next(callback for callback in callbacks if isinstance(callback, BackSlashCallback))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The task's loss, with the teacher's part of it and the rate."""
        given, labels = {name: value for name, value in inputs.items() if name != "labels"}, inputs.get("labels")
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)  # type: ignore[misc]
        constraint = self.backslash.constraint
        if model.training and constraint is not None:
            micro_batches = self.current_gradient_accumulation_steps  # type: ignore[attr-defined]
            parts = micro_batches if self._is_whole(num_items_in_batch) else 1  # that losses are to be summed over
            if self.teacher is not None:
                taught = self._distillation(outputs, given, labels)
                loss = (1 - self.distil) * loss + self.distil * taught / parts
            if not constraint.asked:  # by an earlier micro-batch of this step
                loss = loss + constraint.loss() * (micro_batches / parts)
        return (loss, outputs) if return_outputs else loss

    def _is_whole(self, num_items_in_batch: Any) -> bool:
        """Whether the task's loss is that of a part of the batch already, which the Trainer then does not divide."""
        if (said := getattr(self, "loss_is_scaled_for_ga", None)) is not None:
            return bool(said)
        counted = num_items_in_batch is not None and self.model_accepts_loss_kwargs  # type: ignore[attr-defined]
        return counted or self.compute_loss_func is not None  # type: ignore[attr-defined]

    def _distillation(self, outputs: Any, inputs: dict[str, Any], labels: Tensor | None) -> Tensor:
        """KL divergence of the teacher's softened outputs from the model's, times the temperature squared.

        The mean over predictions, those without a label (-100) left out (Hinton, Vinyals and Dean 2015).
        """
        positions = {"start_positions", "end_positions"}
        if labels is not None and getattr(self, "_loss_shifts_labels", False):  # a language model's, of the next token
            labels = functional.pad(labels[..., 1:], (0, 1), value=-100)
        with torch.no_grad():
            taught = self.teacher(**{name: value for name, value in inputs.items() if name not in positions})  # type: ignore[misc]
        parts = []
        for name in [name for name in outputs if name.endswith("logits")]:
            own, other = (of[name].float().flatten(0, -2) / self.temperature for of in (outputs, taught))
            if labels is not None and labels.numel() == own.shape[0]:
                counted = labels.flatten() != -100
                own, other = own[counted], other[counted]
            divergence = functional.kl_div(
                own.log_softmax(-1), other.log_softmax(-1), log_target=True, reduction="none"
            )
            parts.append(divergence.sum(-1).mean())
        return self.temperature**2 * torch.stack(parts).mean()
