"""bsexport inspect."""

from __future__ import annotations

from pathlib import Path

import click

from bsexport.cli.options import echo_json, json_option, package_argument


@click.command()
@package_argument
@json_option
def inspect(package: Path, as_json: bool) -> None:
    """Show what PACKAGE holds.

    Its recipe, sizes, and every tensor with its layout, zeros and bits per weight. Example:

    \b
        bsexport inspect my-model-bsx
    """
    import bsexport_runtime

    found = bsexport_runtime.inspect(package)
    if as_json:
        echo_json(found)
        return
    from bsexport.table import manifest_text

    click.echo(f"{found['path']}: format version {found['version']}, made by {found['producer']}")
    click.echo(f"decoded here by {found['backend']}")
    click.echo(manifest_text(found))
