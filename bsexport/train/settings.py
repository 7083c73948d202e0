"""What train is told to do: validated once, before anything is read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bsexport.backslash import Rate
from bsexport.errors import RecipeError

EPOCHS = 3.0
LONGEST = 128  # tokens


@dataclass(frozen=True)
class Settings:
    """A training run.

    model: directory, hub id or configuration file (then it is trained from scratch). data, eval_data: what
    tasks.data.read_data takes; split and eval_split: of them. out: the directory to appear.
    rate: the recipe of the rate. task: a pipeline's name; None: what config.json says.
    columns: by role, those that the user named. teacher: a directory or hub id, or None; temperature, distil: of it.
    epochs or steps: the length; neither: EPOCHS. lr: peak learning rate. batch_size: rows of one process and one
    micro-batch; grad_accumulation: micro-batches of one step. max_length: in tokens; None: LONGEST, or less if the
    model takes less.
    precision: "bf16", "fp16" (autocast; the weights stay float32) or None.
    eval_steps, save_steps: steps between two; None: at the end only, and a tenth of the run. limit, eval_limit:
    rows of the data and of eval_data that are used, drawn by the seed (blocks, for language modelling).
    resume, force: see working. extra: further TrainingArguments, by name.

    Raises RecipeError for a value that cannot be used.
    """

    model: str
    data: str
    out: Path
    rate: Rate
    eval_data: str | None = None
    split: str = "train"
    eval_split: str = "test"
    task: str | None = None
    columns: dict[str, str | None] = field(default_factory=dict)
    teacher: str | None = None
    temperature: float = 2.0
    distil: float = 0.5
    epochs: float | None = None
    steps: int | None = None
    lr: float = 5e-5
    batch_size: int = 16
    grad_accumulation: int = 1
    max_length: int | None = None
    precision: str | None = None
    eval_steps: int | None = None
    save_steps: int | None = None
    limit: int | None = None
    eval_limit: int | None = None
    seed: int = 0
    resume: bool = False
    force: bool = False
    trust_remote_code: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("lr", "temperature", "epochs"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise RecipeError(f"{name} {value} cannot be used: expected a finite number above 0")
        for name in (
            "steps",
            "batch_size",
            "grad_accumulation",
            "max_length",
            "eval_steps",
            "save_steps",
            "limit",
            "eval_limit",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"{name.replace('_', '-')} {value} cannot be used: expected 1 or more")
        if not 0 <= self.distil <= 1:
            raise RecipeError(f"distil {self.distil} cannot be used: expected a share of the loss from 0 to 1")
        if not 0 <= self.seed < 1 << 32:
            raise RecipeError(f"seed {self.seed} cannot be used: expected 0 to 2^32 - 1")
        if self.epochs is not None and self.steps is not None:
            raise RecipeError("epochs and steps are two ways to say how long: give one")
        if self.eval_steps is not None and self.eval_data is None:
            raise RecipeError("eval-steps needs data to evaluate on: give eval-data")
        if self.steps is not None:
            self.rate.rate_steps(self.steps)
