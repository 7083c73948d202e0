"""bsexport verify."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bsexport.cli.group import one_line
from bsexport.cli.options import echo_json, json_option, package_argument, progress_bar, quiet_option, trust_option


@click.command()
@package_argument
@click.option("--against", metavar="MODEL", help="Compare with the model that the package was made from.")
@json_option
@quiet_option
@trust_option
def verify(package: Path, against: str | None, as_json: bool, quiet: bool, trust_remote_code: bool) -> None:
    """Check PACKAGE, or compare it with its model.

    Every checksum is checked, every block decoded, and the coded graph given to onnx's checker; the exit code is 1 if
    anything is wrong.

    With --against, prune the model again, hold every weight against the decoded one (half a step apart at most), and
    say how far the outputs are from the model's. Example:

    \b
        bsexport verify my-model-bsx --against my-model
    """
    from bsexport.source import Source, open_source
    from bsexport.verify import check
    from bsexport_runtime.session import available_cores

    def open_model(task: str | None) -> Source:
        return open_source(against or "", task=task, trust_remote_code=trust_remote_code)

    with progress_bar(hidden=quiet or as_json) as progress:
        verdict = check(package, open_model if against is not None else None, progress, threads=available_cores())
    for line in verdict.wrong:
        click.echo(f"Error: {one_line(line)}", err=True)
    if as_json:
        echo_json(verdict.to_json())
    elif not quiet:
        click.echo(verdict.to_text())
    if verdict.wrong:
        sys.exit(1)
