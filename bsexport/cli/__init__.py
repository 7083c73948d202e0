"""The command line: thin commands over the Python API; heavy imports happen inside the command that needs them."""

from __future__ import annotations

import click

from bsexport import __version__
from bsexport.cli.bench import bench
from bsexport.cli.bundle import bundle
from bsexport.cli.curve import curve
from bsexport.cli.evaluate import evaluate
from bsexport.cli.fit import fit
from bsexport.cli.group import Commands, one_line_warnings
from bsexport.cli.inspect import inspect
from bsexport.cli.pack import pack
from bsexport.cli.reproduce import reproduce
from bsexport.cli.run import run
from bsexport.cli.stats import stats
from bsexport.cli.train import train
from bsexport.cli.unpack import unpack
from bsexport.cli.verify import verify


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from bsexport_runtime import backend

        with one_line_warnings():
            click.echo(f"bsexport {__version__}, codec {backend()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    callback=_print_version,
    expose_value=False,
    is_eager=True,
    help="Show the version and which codec is in use, and exit.",
)
def main() -> None:
    """Prune, quantise and exp-Golomb-code Hugging Face and ONNX models for small devices.

    Exit codes: 0 done; 1 bad input or a failed check, one line on stderr says which; 2 wrong usage.
    """


for command in (train, stats, pack, run, unpack, inspect, verify, bundle, evaluate, curve, bench, fit, reproduce):
    main.add_command(command)
