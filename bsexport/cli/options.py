"""What several commands share: options, the bar of progress, JSON on stdout."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bsexport.errors import BsexportError
from bsexport.processes import Processes


def _be_quiet(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    if value:
        _keep_still()
    return value


def _keep_still() -> None:
    """Say nothing but errors."""
    warnings.simplefilter("ignore")
    logging.getLogger("bsexport").setLevel(logging.ERROR)


def several(
    kind: click.ParamType[Any],
) -> Callable[[click.Context, click.Parameter, str | None], tuple[Any, ...] | None]:
    """A callback for values of one kind with commas between them; each counts once."""

    def convert(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[Any, ...] | None:
        if value is None:
            return None
        return tuple(dict.fromkeys(kind.convert(each.strip(), param, ctx) for each in value.split(",")))

    return convert


package_argument = click.argument("package", type=click.Path(path_type=Path))
mode_option = click.option(
    "--mode",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "int8", "coded"]),
    help="Form of the weights in memory; int8 takes a package made with pack --int8, coded answers as float32.",
)
batch_option = click.option(
    "--batch",
    "batches",
    callback=several(click.IntRange(1)),
    metavar="N,...",
    help="Items in one run.  [default: 1]",
)
length_option = click.option(
    "--length",
    "lengths",
    callback=several(click.IntRange(1)),
    metavar="N,...",
    help="Tokens of a text; the size of any other dimension that the graph leaves open.  [default: 16,128]",
)
force_option = click.option("--force", is_flag=True, help="Replace what an earlier run wrote there.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on stdout.")
quiet_option = click.option("-q", "--quiet", is_flag=True, callback=_be_quiet, help="Print nothing but errors.")
trust_option = click.option("--trust-remote-code", is_flag=True, help="Run model code that comes with the model.")


def check_installed(what: str, names: Iterable[str], extra: str) -> None:
    """Raise BsexportError if something that `what` needs is not installed; all of it comes with the extra."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise BsexportError(f"{what} needs {name}; run pip install 'bsexport[{extra}]'")


@contextmanager
def first_speaks() -> Iterator[None]:
    """Of the processes of torchrun all but the first keep still: what one has to say, the first says, too."""
    from bsexport_runtime.errors import BsexportRuntimeError

    if Processes.launched().first:
        yield
        return
    _keep_still()
    try:
        yield
    except (BsexportError, BsexportRuntimeError):
        sys.exit(1)


@contextmanager
def progress_bar(*, hidden: bool) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr that shows stage and share, if stderr is a terminal."""
    if hidden or not sys.stderr.isatty():
        yield lambda stage, share: None
        return
    with click.progressbar(length=1000, file=sys.stderr, show_pos=False, width=40) as bar:

        def show(stage: str, share: float) -> None:
            if bar.label != stage:
                bar.label, bar.pos = stage, 0
            bar.update(int(1000 * share) - bar.pos)

        yield show


def echo_json(value: dict[str, Any]) -> None:
    """The value on stdout, as JSON that every reader takes."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))
