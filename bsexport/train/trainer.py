"""transformers' Trainer with the rate, which stops at a loss that is no number and seals checkpoints that are whole."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TextIO

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from bsexport.backslash.trainer import BackSlashMixin
from bsexport.backslash.weights import local
from bsexport.errors import TrainError
from bsexport.train.checkpoints import Checkpoints

_SWITCHED = ("use_cache",)  # what Trainer changes in a model's configuration
_NEVER = torch.iinfo(torch.int64).max
_REDRAW = 0.1  # seconds between two states of the line of progress


class RateTrainer(BackSlashMixin, Trainer):  # type: ignore[misc]
    """The Trainer of a run. working: its directory, in the process that writes; None in the others."""

    def __init__(self, *args: Any, model: Any, working: Checkpoints | None, **kwargs: Any) -> None:
        self._settings = {name: getattr(model.config, name) for name in _SWITCHED if hasattr(model.config, name)}
        super().__init__(*args, model=model, **kwargs)
        self.finite = Finite()
        self.remove_callback(PrinterCallback)
        self.add_callback(self.finite)
        self.add_callback(Seal(working))

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's, with a look at the loss."""
        loss = super().training_step(*args, **kwargs)
        self.finite.see(loss, self.state.global_step + 1)
        return loss

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """As Trainer's, with the model's configuration as it was before Trainer changed it for training."""
        during = {name: getattr(self.model.config, name) for name in self._settings}
        self.model.config.update(self._settings)
        super().save_model(*args, **kwargs)
        self.model.config.update(during)

    def restore(self, checkpoint: Path) -> None:
        """Be as after training, from a checkpoint of the last step."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        self._load_callback_state()


class Finite(TrainerCallback):  # type: ignore[misc]
    """Stops a run whose loss or weights are NaN or infinite, before anything of it is kept, and names the step.

    On an accelerator the host asks only where it waits anyway: at logs, evaluations and checkpoints.
    """

    def __init__(self) -> None:
        self.first: torch.Tensor | None = None  # the first such step, int64 []

    def see(self, loss: torch.Tensor, step: int) -> None:
        """Look at the loss of a micro-batch of a step (from 1)."""
        seen = torch.where(loss.detach().isfinite(), _NEVER, step)
        self.first = seen if self.first is None else torch.minimum(self.first, seen)

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Raise TrainError if such a loss was seen by any process, or such weights are about to be kept."""
        if control.should_save or state.global_step >= state.max_steps:
            self.first = _step_of_weights(model, state.global_step, self.first)
        waits = control.should_log or control.should_evaluate or control.should_save or control.should_training_stop
        if self.first is None or not (waits or self.first.device.type == "cpu"):
            return
        if args.world_size > 1:
            torch.distributed.all_reduce(self.first, torch.distributed.ReduceOp.MIN)
        if (first := int(self.first)) < _NEVER:
            raise TrainError(f"step {first}: the loss or a weight is not a finite number")


def _step_of_weights(model: Any, step: int, before: torch.Tensor | None) -> torch.Tensor:
    """The step, or an earlier one, if a parameter holds NaN or an infinity; int64 []."""
    finite = [local(parameter).isfinite().all() for parameter in model.parameters() if parameter.is_floating_point()]
    seen = torch.where(torch.stack(finite).all(), _NEVER, step)
    return seen if before is None else torch.minimum(before, seen)


class Seal(TrainerCallback):  # type: ignore[misc]
    """Seals each checkpoint after every process has written its part."""

    def __init__(self, working: Checkpoints | None) -> None:
        self.working = working

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The checkpoint of this step is whole."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if self.working is not None:
            self.working.complete(state.global_step, last=state.global_step >= state.max_steps)


class Progress(TrainerCallback):  # type: ignore[misc]
    """A line on a terminal: steps, time left, and the loss and the rate's figures of the last log."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._figures = ""
        self._begun, self._drawn, self._first = 0.0, 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._begun, self._first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **_: Any) -> None:
        if "bits" in logs:
            self._figures = (
                f"loss {logs['loss']:.4f}  {logs['bits']:.3f} bits/weight  "
                f"shape {logs['shape']:.3f}  zeros {logs['sparsity']:.1%}"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.monotonic()
        if now - self._drawn < _REDRAW and state.global_step < state.max_steps:
            return
        self._drawn = now
        left = (now - self._begun) / (state.global_step - self._first) * (state.max_steps - state.global_step)
        line = f"step {state.global_step}/{state.max_steps}  {_clock(left)} left  {self._figures}"
        print(f"\r\033[K{line}", end="", file=self._terminal, flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        print(file=self._terminal)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
