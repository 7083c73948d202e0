"""bsexport unpack."""

from __future__ import annotations

from pathlib import Path

import click

from bsexport.cli.options import force_option, package_argument, quiet_option


@click.command()
@package_argument
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="NAME.onnx for a plain graph, any other name for a directory that transformers loads.",
)
@force_option
@quiet_option
def unpack(package: Path, out: Path, force: bool, quiet: bool) -> None:
    """Turn PACKAGE back into a plain .onnx file, or into a directory with model.safetensors.

    The weights are the decoded ones, in float32. Examples:

    \b
        bsexport unpack my-model-bsx -o my-model.onnx
        bsexport unpack my-model-bsx -o my-model-decoded
    """
    from bsexport.unpack import unpack as unpack_package

    unpack_package(package, out, force=force)
    if not quiet:
        click.echo(f"{package} -> {out}")
