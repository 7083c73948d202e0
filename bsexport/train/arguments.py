"""From settings, and options that are not ours, to transformers' TrainingArguments."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from bsexport.errors import RecipeError, TrainError
from bsexport.graph.architecture import first_line
from bsexport.processes import Processes
from bsexport.quiet import quiet
from bsexport.train.settings import EPOCHS, Settings

WARMUP = 0.05  # share of the steps over which the learning rate rises
LOGS = 0.01  # share of the steps between two logs
SAVES = 0.1  # share of the steps between two checkpoints

_OURS = {
    "output_dir": "-o",
    "learning_rate": "--lr",
    "num_train_epochs": "--epochs",
    "max_steps": "--steps",
    "per_device_train_batch_size": "--batch-size",
    "gradient_accumulation_steps": "--grad-accumulation",
    "resume_from_checkpoint": "--resume",
    "eval_strategy": "--eval-steps",
    "save_strategy": "--save-steps",
}
_NOT_HERE = {
    "do_train", "do_eval", "do_predict", "load_best_model_at_end", "save_total_limit", "save_only_model",
    "restore_callback_states_from_checkpoint", "auto_find_batch_size", "ignore_data_skip", "use_legacy_prediction_loop",
    "bf16_full_eval", "fp16_full_eval",
}  # fmt: skip
"""What would break a promise of train: the last weights, checkpoints that a run resumes from exactly."""


class WrongUsageError(ValueError):
    """Options that no part of train knows, or may have."""


def parse_extra(words: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """Fields of TrainingArguments from words of the command line that are not train's own options.

    known: the options of train, to suggest from. Raises WrongUsageError.
    """
    if not words:
        return {}
    with quiet():
        from transformers import HfArgumentParser, TrainingArguments

    class Parser(HfArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise WrongUsageError(message)

    with quiet():
        parser = Parser(TrainingArguments, allow_abbrev=False, add_help=False)
    for action in parser._actions:
        action.default = argparse.SUPPRESS  # so that only what was given is found
    found, left = parser.parse_known_args(list(words))
    if left:
        options = [*known, *parser._option_string_actions]
        near = difflib.get_close_matches(left[0].split("=")[0], options, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise WrongUsageError(f"no such option: {left[0]}{meant} (nor has transformers.TrainingArguments one)")
    extra: dict[str, Any] = vars(found)
    for name in extra:
        if name in _OURS:
            raise WrongUsageError(f"--{name.replace('_', '-')} is {_OURS[name]} here")
        if name in _NOT_HERE or "hub" in name:
            raise WrongUsageError(f"--{name.replace('_', '-')} is not for bsexport train")
    return extra


def training_arguments(settings: Settings, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The TrainingArguments of a run that works in `folder`, and those of them that decide what comes out.

    Raises RecipeError if transformers does not take a value.
    """
    decisive = _decisive(settings)
    with quiet():
        import torch
        from transformers import TrainingArguments
        from transformers.integrations import is_tensorboard_available

        others = {
            "output_dir": str(folder),
            "use_cpu": not torch.accelerator.is_available(),  # or else processes on CPUs would not find each other
            "report_to": ["tensorboard"] if is_tensorboard_available() else [],
            "logging_steps": LOGS,
            "logging_first_step": True,
            "logging_nan_inf_filter": False,
            "disable_tqdm": True,
            "log_level": "error",
            "log_level_replica": "error",
            "restore_callback_states_from_checkpoint": True,
        }
        try:
            arguments = TrainingArguments(**others | decisive)
            processes = arguments.world_size
        except Exception as error:  # whatever combination it does not like
            raise RecipeError(f"transformers does not take these options: {first_line(error)}") from error
    if processes != (launched := Processes.launched().count):
        raise TrainError(
            f"{launched} processes were started, but accelerate sees {processes}; check how they are launched"
        )
    return arguments, decisive


def _decisive(settings: Settings) -> dict[str, Any]:
    length = {"max_steps": settings.steps} if settings.steps else {"num_train_epochs": settings.epochs or EPOCHS}
    own = {
        "learning_rate": settings.lr,
        "lr_scheduler_type": "linear",
        "warmup_steps": WARMUP,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.grad_accumulation,
        "bf16": settings.precision == "bf16",
        "fp16": settings.precision == "fp16",
        "seed": settings.seed,
        "eval_strategy": "steps" if settings.eval_steps else "no",
        "eval_steps": settings.eval_steps,
        "save_strategy": "steps",
        "save_steps": settings.save_steps or SAVES,
    }
    return own | length | settings.extra
