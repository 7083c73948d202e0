"""bsexport train."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bsexport.cli.groups import GroupedCommand, GroupedOption
from bsexport.cli.options import (
    check_installed,
    echo_json,
    first_speaks,
    force_option,
    json_option,
    quiet_option,
    trust_option,
)
from bsexport.processes import Processes
from bsexport.recipe import NO_PROTECTION, parse_step

if TYPE_CHECKING:
    from bsexport.backslash import Rate
    from bsexport.train.settings import Settings

_NEEDED = ("torch", "transformers", "accelerate", "datasets", "matplotlib")
_ROLES = ("text", "pair", "label", "source", "target")
_WEIGHTS: dict[str, Any] = {
    "pull": "pull",
    "lambda_": "lambda",
    "lambda_per_weight": "per-weight",
    "bits_weight": "bits",
    "target_bits": "target-bits",
    "target_sparsity": "target-sparsity",
}
"""Option -> the kind of Weight it gives."""


def _heading(heading: str) -> Callable[..., Callable[[Any], Any]]:
    return partial(click.option, cls=GroupedOption, heading=heading)


_data = _heading("Data")
_rate = _heading("Rate: how strong (at most one)")
_form = _heading("Rate: how")
_teach = _heading("Teacher")
_length = _heading("Training")


@click.command(cls=GroupedCommand, context_settings={"ignore_unknown_options": True})
@click.argument("model")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[TRAINING_ARGUMENTS]...")
@_data("--data", required=True, help="A .csv, .jsonl, .parquet or .txt file (also .xz, .gz), a folder, or a Hub name.")
@_data("--eval-data", help="The same, to evaluate on at the end.")
@_data("--split", default="train", show_default=True, help="Of a folder or a Hub name.")
@_data("--eval-split", default="test", show_default=True, help="The same, of --eval-data.")
@_data("--task", help="What to train for, such as text-classification.  [default: what config.json says]")
@_data("--text", metavar="COLUMN", help="The text; its words, for token classification; the passage, for answering.")
@_data("--pair", metavar="COLUMN", help="The second text of a pair; the question.")
@_data("--label", metavar="COLUMN", help="The label; one for each word; the answer.")
@_data("--source", metavar="COLUMN", help="What to translate.")
@_data("--target", metavar="COLUMN", help="What it becomes.")
@_data("--limit", type=int, metavar="N", help="Use only so many rows of --data, drawn by the seed.")
@_data("--eval-limit", type=int, metavar="N", help="And of --eval-data.")
@_data("--max-length", type=int, metavar="N", help="Tokens to cut at.  [default: 128, or less if the model takes less]")
@_rate("--pull", type=float, help="Total pull on a weight, in units of the weights' rms.  [default: 1.0]")
@_rate("--lambda", "lambda_", type=float, help="The paper's lambda.")
@_rate("--lambda-per-weight", type=float, help="The same, divided by the number of weights.")
@_rate("--bits-weight", type=float, help="Loss per bit/weight.")
@_rate("--target-bits", type=float, help="Entropy to arrive at, in bits/weight at --step.")
@_rate("--target-sparsity", type=float, help="Share of zeros to arrive at, at --step.")
@_form(
    "--form",
    type=click.Choice(["proximal", "decoupled", "loss", "gradual", "oneshot", "none"]),
    help="A pull after each step that stops at zero, or (the paper's code) does not; the paper's term in the loss; "
    "magnitude pruning little by little or at once, to compare with; or nothing.  [default: proximal]",
)
@_form("--shape", help="Estimated for each tensor, or global, or a number.  [default: tensor; to a target 0.1]")
@_form(
    "--metric",
    type=click.Choice(["plain", "adam"]),
    help="In which the pull acts.  [default: plain; to a target adam]",
)
@_form(
    "--epsilon",
    help="Soft clip: 1, or 0.1rms in units of the weights' rms.  [default: 0.1rms; to a target 0.02rms]",
)
@_form("--ramp", type=float, help="Share of the rate's steps over which it rises.  [default: 0.1]")
@_form("--settle-steps", type=int, metavar="N", help="Last steps without the rate.  [default: a quarter]")
@_form("--no-freeze", is_flag=True, help="Let zeros change in them.")
@_form("--round", is_flag=True, help="Train on rounded weights in them.")
@_form("--step", help="The step that pack will use; weights below half of it are zeros.  [default: 2^-8]")
@_form("--only", multiple=True, metavar="GLOB", help="Parameters that take part. Repeatable.  [default: *]")
@_form(
    "--exempt",
    multiple=True,
    metavar="GLOB",
    help=f"Parameters that do not, besides the task head; '{NO_PROTECTION}' lets the head take part. Repeatable.",
)
@_teach("--teacher", metavar="MODEL", help="Learn from what this trained model says, too.")
@_teach("--temperature", type=float, default=2.0, show_default=True, help="Of what both say.")
@_teach("--distil", type=float, default=0.5, show_default=True, help="The teacher's share of the loss.")
@_length("--epochs", type=float, help="How long, in passes over the data.  [default: 3]")
@_length("--steps", type=int, help="How long, in steps of the optimizer.")
@_length("--lr", type=float, default=5e-5, show_default=True, help="Learning rate: up over 5% of the steps, then down.")
@_length("--batch-size", type=int, default=16, show_default=True, help="Rows at a time, in each process.")
@_length("--grad-accumulation", type=int, default=1, show_default=True, help="Batches that make one step.")
@_length("--bf16", is_flag=True, help="Compute in bfloat16; weights stay float32.")
@_length("--fp16", is_flag=True, help="Compute in float16; weights stay float32.")
@_length("--eval-steps", type=int, metavar="N", help="Evaluate every so many steps, too.")
@_length("--save-steps", type=int, metavar="N", help="Keep a checkpoint every so many.  [default: a tenth]")
@_length("--seed", type=int, default=0, show_default=True, help="Of order, dropout, new heads and --limit.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Directory of the trained model.")
@click.option("--resume", is_flag=True, help="Go on where a killed run left off, to the same weights.")
@force_option
@json_option
@quiet_option
@trust_option
@click.pass_context
def train(ctx: click.Context, /, **options: Any) -> None:
    """Train MODEL under a rate, so that its weights can be pruned and coded.

    MODEL is a Hugging Face directory, a hub id, or a config.json to begin from scratch. Further options go to
    transformers.TrainingArguments; they stand behind MODEL. What comes out is a directory for transformers and for
    pack, with the run's figures in backslash.json and backslash.svg. Example:

    \b
        bsexport train my-model --data reviews.csv --eval-data test.csv -o my-sparse-model --weight-decay 0.01

    A killed run leaves checkpoints in DIR.partial. On several devices: torchrun --nproc-per-node 2 -m bsexport.cli
    train, and so on.
    """
    first = Processes.launched().first
    if not first:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # or else it would wait for the others before it ends
    as_json, quiet, model = options["as_json"], options["quiet"], options["model"]
    with first_speaks():
        check_installed("training", _NEEDED, "train")
        settings = _settings(ctx, options)
        from bsexport.train.run import train as run

        shown = first and not quiet and not as_json and sys.stderr.isatty()
        record = run(settings, progress=sys.stderr if shown else None)
    if first and as_json:
        from bsexport.record import finite

        echo_json({"out": str(settings.out), **finite(record)})
    elif first and not quiet:
        from bsexport.train.summary import summary

        click.echo(f"{click.format_filename(model)} -> {settings.out}")
        click.echo(summary(record, settings.out))


def _settings(ctx: click.Context, options: dict[str, Any]) -> Settings:
    from bsexport.train.arguments import WrongUsageError, parse_extra
    from bsexport.train.settings import Settings

    if options["model"].startswith("-"):
        raise click.UsageError(f"no such option: {options['model']}, or it stands before MODEL, which must come first")
    if options["bf16"] and options["fp16"]:
        raise click.UsageError("give one of --bf16 and --fp16")
    if options["epochs"] is not None and options["steps"] is not None:
        raise click.UsageError("give one of --epochs and --steps")
    for name in ("temperature", "distil"):
        if options["teacher"] is None and ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} goes with --teacher")
    rate = _rate_of(options)
    known = [name for parameter in ctx.command.params for name in parameter.opts if name.startswith("--")]
    try:
        extra = parse_extra(options["extra"], known)
    except WrongUsageError as error:
        raise click.UsageError(str(error)) from error
    same = (
        "model", "data", "eval_data", "split", "eval_split", "task", "out", "teacher", "temperature", "distil",
        "epochs", "steps", "lr", "batch_size", "grad_accumulation", "max_length", "eval_steps", "save_steps", "limit",
        "eval_limit", "seed", "resume", "force", "trust_remote_code",
    )  # fmt: skip
    return Settings(
        rate=rate,
        columns={role: options[role] for role in _ROLES},
        precision="bf16" if options["bf16"] else "fp16" if options["fp16"] else None,
        extra=extra,
        **{name: options[name] for name in same},
    )


def _rate_of(options: dict[str, Any]) -> Rate:
    """The rate that the options ask for; what is not given is as in Rate."""
    from bsexport.backslash import Epsilon, Rate, Weight

    weights = {option: options[option] for option in _WEIGHTS if options[option] is not None}
    if len(weights) > 1:
        given = " and ".join(f"--{option.rstrip('_').replace('_', '-')}" for option in weights)
        raise click.UsageError(f"give one of {given}")
    if options["form"] == "none" and weights:
        raise click.UsageError("--form none has no rate: leave out its strength")
    made: dict[str, Any] = {
        "settle": options["settle_steps"],
        "shape": _number_or_text(options["shape"]),
        "epsilon": options["epsilon"] and Epsilon.parse(options["epsilon"]),
        "step": options["step"] and parse_step(options["step"]),
        "only": options["only"] or None,
        "exempt": options["exempt"] or None,
        "freeze": False if options["no_freeze"] else None,
        "round": options["round"] or None,
        **{name: options[name] for name in ("form", "metric", "ramp")},
    }
    for option, value in weights.items():
        made["weight"] = Weight(_WEIGHTS[option], value)
    return Rate(**{name: value for name, value in made.items() if value is not None})


def _number_or_text(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
