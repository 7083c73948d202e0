"""train(): the straight line from a model and data to a trained directory. Read this first."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any, TextIO

import torch
from safetensors import SafetensorError
from transformers import set_seed
from transformers.integrations import TensorBoardCallback
from transformers.trainer import TRAINING_ARGS_NAME

from bsexport.backslash.measure import measure
from bsexport.backslash.weights import Weights
from bsexport.checkpoint import Checkpoint
from bsexport.errors import OutputError, TrainError
from bsexport.graph.architecture import first_line
from bsexport.graph.heads import is_head
from bsexport.processes import Processes
from bsexport.quiet import quiet
from bsexport.record import finite, versions, write_record
from bsexport.tasks.data import Data, read_data
from bsexport.tasks.labels import Labels
from bsexport.tasks.language_modelling import CausalLanguageModelling
from bsexport.tasks.task import Task
from bsexport.train.arguments import training_arguments
from bsexport.train.checkpoints import Checkpoints
from bsexport.train.model import Origin, check_causal, counts_items, digest, load, load_teacher, open_origin
from bsexport.train.plot import PLOT, plot
from bsexport.train.record import DEPENDENCIES, FORMAT, RECORD, VERSION, coded_figures, curve, evaluations
from bsexport.train.settings import Settings
from bsexport.train.trainer import Progress, RateTrainer

_TORCH_CANNOT_WRITE = ("iostream error", "PytorchStreamWriter")  # in a plain RuntimeError
_LOOKED_AT = 4  # rows, to see how the model takes its loss


def train(settings: Settings, *, progress: TextIO | None = None) -> dict[str, Any]:
    """Train a model under a rate and write its directory; returns the record that is in it as backslash.json.

    progress: a terminal for a line of figures while it goes on. In a run of several processes (torchrun) each calls
    this; the first writes, and shows the line.
    Raises BsexportError. What was trained till then is kept in a working directory, see working.
    """
    writes = Processes.launched().first
    working = Checkpoints(settings.out, resume=settings.resume, force=settings.force)
    working.check()
    arguments, decisive = training_arguments(settings, working.path)
    entered: AbstractContextManager[Any] = working if writes else contextlib.nullcontext()
    with entered, _threads(working.began_with("threads")):
        _wait(arguments)
        trainer, run = prepare(settings, working, arguments, decisive, writes=writes)
        if progress is not None and writes:
            trainer.add_callback(Progress(progress))
        if writes:
            working.begin(run)
        _wait(arguments)
        with _writing(working):
            _train(trainer, working, resume=settings.resume)
            return _finish(trainer, working, run, settings, writes=writes)


def prepare(
    settings: Settings, working: Checkpoints, arguments: Any, decisive: dict[str, Any], *, writes: bool
) -> tuple[RateTrainer, dict[str, Any]]:
    """The Trainer, and what decides the weights that come out, as plain values."""
    origin = open_origin(settings.model, settings.task, settings.trust_remote_code)
    max_length = origin.max_length(settings.max_length)
    with arguments.main_process_first():
        data = read_data(settings.data, settings.split, working.cache)
        eval_data = read_data(settings.eval_data, settings.eval_split, working.cache) if settings.eval_data else None
    task = origin.task.on(data, settings.columns)
    labels = task.labels(data, origin.head())

    set_seed(settings.seed)
    model, new = load(origin, labels)
    Weights.of(model, settings.rate.only, settings.rate.exempt)  # says now what speaks against it
    teacher = load_teacher(settings.teacher, origin, labels) if settings.teacher else None
    if surprising := [name for name in new if not is_head(name)]:
        warnings.warn(f"{settings.model}: lacks {', '.join(surprising)}, which begin at random", stacklevel=2)
    with arguments.main_process_first():
        rows = task.examples(data, origin.tokenizer, max_length, labels, settings.limit, settings.seed)
        eval_rows = _eval_rows(eval_data, origin, settings, labels, max_length)
    collator = task.collator(origin.tokenizer, model, settings.seed)
    if task.name == CausalLanguageModelling.name:
        check_causal(model, settings.model)
    model.accepts_loss_kwargs = counts_items(
        model.eval(), collator(list(rows.select(range(min(len(rows), _LOOKED_AT)))))
    )
    trainer = RateTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=eval_rows,
        processing_class=origin.tokenizer,
        data_collator=collator,
        compute_metrics=task.metrics,
        preprocess_logits_for_metrics=task.predict,
        rate=settings.rate,
        teacher=teacher,
        temperature=settings.temperature,
        distil=settings.distil,
        working=working if writes else None,
    )
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(working.logs)
    run = {
        "rate": settings.rate.to_json(),
        "model": {"name": settings.model, "sha256": digest(model), "new": new},
        "task": task.name,
        "data": _described(data, task, len(rows)),
        "eval_data": _described(eval_data, task, len(eval_rows)) if eval_data else None,
        "max_length": max_length,
        "limit": settings.limit,
        "teacher": teacher
        and {
            "name": settings.teacher,
            "sha256": digest(teacher),
            "temperature": settings.temperature,
            "distil": settings.distil,
        },
        "arguments": decisive,
        "processes": arguments.world_size,
        "threads": torch.get_num_threads(),
    }
    return trainer, run


def _eval_rows(data: Data | None, origin: Origin, settings: Settings, labels: Labels | None, max_length: int) -> Any:
    """Data to evaluate on, encoded with the labels of the model's head."""
    if data is None:
        return None
    task = origin.task.on(data, settings.columns)
    known = task.labels(data, labels.names if labels else None)
    return task.examples(data, origin.tokenizer, max_length, known, settings.eval_limit, settings.seed)


def _described(data: Data, task: Task, examples: int) -> dict[str, Any]:
    return {
        "name": data.name,
        "split": data.split,
        "sha256": data.sha256,
        "columns": task.columns,
        "rows": len(data.rows),
        "examples": examples,
    }


def _train(trainer: RateTrainer, working: Checkpoints, *, resume: bool) -> None:
    """Train from the last checkpoint, if there is one to resume from. Raises TrainError, which says what is left."""
    found = working.last_checkpoint() if resume else None
    try:
        if found and found.last:
            trainer.restore(found.path)
        else:
            with quiet():
                trainer.train(resume_from_checkpoint=str(found.path) if found else None)
    except TrainError as error:
        left = working.last_checkpoint()
        kept = f"the checkpoint of step {left.step} is kept in {working.path}" if left else "there is no checkpoint yet"
        raise TrainError(f"{error}; {kept}; begin anew with a smaller --lr or a weaker rate") from error
    except ValueError as error:  # options that transformers does not take together
        raise TrainError(f"transformers does not take this run: {first_line(error)}") from error
    except torch.OutOfMemoryError as error:
        raise TrainError(
            "the accelerator's memory is full; use a smaller --batch-size with --grad-accumulation"
        ) from error


def _finish(
    trainer: RateTrainer, working: Checkpoints, run: dict[str, Any], settings: Settings, *, writes: bool
) -> dict[str, Any]:
    """Evaluate, write the model, the record and the plot, and let them appear as the output."""
    arguments, rate = trainer.args, settings.rate
    if trainer.eval_dataset is not None:
        with quiet():
            trainer.evaluate()
        trainer.callback_handler.on_train_end(arguments, trainer.state, trainer.control)  # closes logs again
    measured = measure(Weights.of(trainer.model, rate.only, rate.exempt), rate.step)
    with quiet():
        trainer.save_model(str(working.output))
    _wait(arguments)
    if not writes:
        return {}
    (working.output / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle
    working.open_to_readers()
    evaluated = evaluations(trainer.state.log_history)
    record = {
        "format": FORMAT,
        "version": VERSION,
        **run,
        "seed": settings.seed,
        "steps": trainer.state.max_steps,
        "versions": versions(DEPENDENCIES),
        "curve": curve(trainer.state.log_history),
        "evaluations": evaluated,
        "final": {
            "loss": evaluated[-1]["loss"] if evaluated else None,
            "accuracy": evaluated[-1]["accuracy"] if evaluated else None,
            "taking_part": asdict(measured),
            "coded": coded_figures(Checkpoint.open(working.output), rate.step),
        },
    }
    write_record(working.output / RECORD, finite(record))
    plot(working.output / PLOT, record)
    working.publish()
    return record


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """As many threads as a resumed run began with: another number adds up in another order, to other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _writing(working: Checkpoints) -> Iterator[None]:
    """Turn what a full disk leads to, in any of the libraries that write, into an OutputError."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in _TORCH_CANNOT_WRITE):
            raise
        raise OutputError(
            f"{working.path}: cannot be written: {first_line(error)}; make room, then go on with --resume"
        ) from error


def _wait(arguments: Any) -> None:
    """Until every process of the run is here."""
    if arguments.world_size > 1:
        torch.distributed.barrier()
