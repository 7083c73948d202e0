"""bsexport fit."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bsexport.bench.worker import MODES
from bsexport.cli.options import (
    batch_option,
    echo_json,
    json_option,
    length_option,
    package_argument,
    progress_bar,
    several,
)


def _limit(ctx: click.Context, param: click.Parameter, value: str) -> int:
    from bsexport_runtime.errors import BsexportRuntimeError
    from bsexport_runtime.residency import parse_limit

    try:
        return parse_limit(value)
    except BsexportRuntimeError:
        raise click.BadParameter(f"{value!r} is no size above 0, such as 512MB, 0.5GiB or 536870912") from None


@click.command()
@package_argument
@click.option(
    "--memory",
    "limit",
    required=True,
    callback=_limit,
    metavar="SIZE",
    help="Private memory above the imports, such as 512MB, 0.5GiB or a number of bytes.",
)
@click.option(
    "--modes",
    default=",".join(MODES),
    show_default=True,
    callback=several(click.Choice(list(MODES))),
    metavar="MODE,...",
    help="Forms of the weights in memory to try.",
)
@batch_option
@length_option
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads to use.  [default: all cores]")
@json_option
def fit(
    package: Path,
    limit: int,
    modes: tuple[str, ...],
    batches: tuple[int, ...] | None,
    lengths: tuple[int, ...] | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Say whether PACKAGE loads and answers within so much memory.

    Each mode is loaded and run on made-up inputs in a fresh process that the system gives so much private memory and no
    more, so that "yes" is a fact. Python, numpy, onnxruntime and the inputs come on top, as do file pages, which the
    system may drop; the sizes of both are printed. Linux only. The exit code is 0 if a mode fits, 1 if none does.
    Examples:

    \b
        bsexport fit my-model-bsx --memory 512MB
        bsexport fit my-model-bsx --memory 64MiB --length 128 --threads 1
    """
    from bsexport.fit.run import fit as fit_package

    with progress_bar(hidden=as_json) as progress:
        report = fit_package(
            package, limit, modes, batches=batches, lengths=lengths, threads=threads, progress=progress
        )
    if as_json:
        echo_json(report.to_json())
    else:
        click.echo(report.to_text())
    if report.best is None:
        click.echo(f"Error: {package}: no mode fits into {limit} bytes of memory", err=True)
        sys.exit(1)
