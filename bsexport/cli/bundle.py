"""bsexport bundle."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bsexport.cli.options import echo_json, force_option, json_option, package_argument, progress_bar, quiet_option


@click.command()
@package_argument
@click.option(
    "--target",
    required=True,
    type=click.Choice(["linux-aarch64", "linux-x86_64"]),
    help="The device: Linux with glibc 2.28 or later on this processor, see `uname -m` there.",
)
@click.option(
    "--python",
    default=f"{sys.version_info.major}.{sys.version_info.minor}",
    metavar="X.Y",
    help="The version of the device's Python.  [default: of this one]",
)
@click.option(
    "--wheels",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Wheels to take before those of pip's index, such as the runtime's own from `make wheels`.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder to write, to be copied to the device.",
)
@force_option
@json_option
@quiet_option
def bundle(
    package: Path,
    target: str,
    python: str,
    wheels: Path | None,
    out: Path,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Put PACKAGE and all that runs it into one folder, for a device without a network.

    The folder holds the package, wheels of the runtime, onnxruntime and numpy for that device, fetched by pip, a script
    that installs them, a smoke test, and checksums. Examples:

    \b
        bsexport bundle my-model-bsx --target linux-aarch64 --python 3.11 -o my-bundle
        make wheels    # in a checkout of this project, whose runtime no index has
        bsexport bundle my-model-bsx --target linux-aarch64 --wheels dist -o my-bundle
    """
    from bsexport.bundle.run import bundle as make_bundle
    from bsexport.bundle.target import target_of

    with progress_bar(hidden=quiet or as_json) as progress:
        record = make_bundle(package, target_of(target, python), out, wheels=wheels, force=force, progress=progress)
    if as_json:
        echo_json({"out": str(out), **record})
    elif not quiet:
        click.echo(f"{package} -> {out}, for {record['target']} and Python {record['python']}")
        for name, size in record["bytes"].items():
            click.echo(f"{size:>14,}  {name}")
        click.echo(f"{sum(record['bytes'].values()):>14,}  in all; on the device: sh install.sh")
