"""What the commands that measure on data share: which data, which columns, how much of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bsexport.evaluate.examples import Asked

ROLES = ("text", "pair", "label", "image")
NEEDED = ("torch", "transformers", "datasets", "joblib", "matplotlib")

_OPTIONS = (
    click.option(
        "--data",
        required=True,
        metavar="FILE",
        help="A csv, jsonl, parquet or text file, compressed or not; a folder; a hub name.",
    ),
    click.option("--split", default="test", show_default=True, help="Of a folder of datasets or a set on the hub."),
    click.option("--text", metavar="COLUMN", help="The column of texts, words or passages."),
    click.option("--pair", metavar="COLUMN", help="The column of second texts, or of questions."),
    click.option("--label", metavar="COLUMN", help="The column of labels or answers."),
    click.option("--image", metavar="COLUMN", help="The column of images."),
    click.option("--task", help="What the model is for.  [default: what its config.json says]"),
    click.option("--limit", type=int, metavar="N", help="Measure on so many examples, drawn by the seed."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of --limit, and of masks in a text."),
    click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Examples run together."),
)


def data_options(length: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options. length: what --max-length is unless it is given."""
    cut = click.option(
        "--max-length",
        type=int,
        metavar="N",
        help=f"Tokens to cut at.  [default: {length}, of a causal language model 512]",
    )
    stride = click.option(
        "--stride",
        type=int,
        metavar="N",
        help="Tokens from a causal language model's window to the next.  [default: half of --max-length]",
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((*_OPTIONS, cut, stride)):
            command = option(command)
        return command

    return add


def asked_of(options: dict[str, Any], trained: int | None) -> Asked:
    """What the options ask for. trained: the length in tokens that the model was trained with, if that is known."""
    from bsexport.evaluate.examples import Asked

    return Asked(
        columns={role: options[role] for role in ROLES},
        task=options["task"],
        limit=options["limit"],
        seed=options["seed"],
        max_length=trained if options["max_length"] is None else options["max_length"],
        stride=options["stride"],
    )
