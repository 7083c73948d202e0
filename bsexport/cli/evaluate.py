"""bsexport evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bsexport.cli.measuring import NEEDED, asked_of, data_options
from bsexport.cli.options import (
    check_installed,
    echo_json,
    first_speaks,
    json_option,
    mode_option,
    package_argument,
    progress_bar,
    quiet_option,
)
from bsexport.processes import Processes


@click.command()
@package_argument
@data_options("128")
@mode_option
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads to use.  [default: all cores]")
@json_option
@quiet_option
def evaluate(package: Path, **options: Any) -> None:
    """Measure how good PACKAGE's answers are on labelled data.

    Each figure comes with its interval of 95% confidence, as the choice of examples leaves it. Example:

    \b
        bsexport evaluate my-model-bsx --data test.csv

    On several machines or processors: torchrun --nproc-per-node 2 -m bsexport.cli evaluate, and so on; the figures are
    the same.
    """
    first = Processes.launched().first
    hidden = options["quiet"] or options["as_json"] or not first
    with first_speaks(), progress_bar(hidden=hidden) as progress:
        check_installed("evaluate", NEEDED, "measure")
        from bsexport.evaluate.package import evaluate_package

        found = evaluate_package(
            package,
            options["data"],
            options["split"],
            asked_of(options, None),
            mode=options["mode"],
            batch_size=options["batch_size"],
            threads=options["threads"],
            progress=progress,
        )
    if not first:
        return
    if options["as_json"]:
        echo_json({"package": str(package), **found})
    elif not options["quiet"]:
        click.echo(f"{package}: {found['examples']:,} examples of {options['data']}")
        for name, figure in found["figures"].items():
            value, low, high = ("beyond numbers" if part is None else f"{part:.4f}" for part in figure.values())
            click.echo(f"{name:12} {value}  (95%: {low} to {high})")
