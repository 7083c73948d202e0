"""bsexport pack."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from bsexport.cli.measuring import NEEDED
from bsexport.cli.options import (
    check_installed,
    echo_json,
    force_option,
    json_option,
    progress_bar,
    quiet_option,
    trust_option,
)
from bsexport.recipe import DEFAULT_STEP, NO_PROTECTION, Recipe, parse_step


@click.command()
@click.argument("model")
@click.option(
    "--prune", type=float, default=0.0, show_default=True, help="Share of the weights to set to zero, 0 to below 1."
)
@click.option(
    "--step",
    help="Quantiser step: a number such as 1e-3, or 2^-8.  [default: what train was told, else 2^-8]",
)
@click.option(
    "--scope",
    default="global",
    show_default=True,
    help="Among which weights the smallest are pruned: of the whole model, of each tensor or of each row.",
    type=click.Choice(["global", "tensor", "row"]),
)
@click.option(
    "--layout",
    type=click.Choice(["eg", "bm", "rl"]),
    help="Force a layout: codewords alone, zero bitmap, or zero runs.  [default: the one of least cost per tensor]",
)
@click.option(
    "--family",
    type=click.Choice(["eg", "rice"]),
    help="Force a code family: exp-Golomb (the paper's) or Golomb-Rice.  [default: the one of least cost per stream]",
)
@click.option(
    "--order",
    type=int,
    help="Force plain exp-Golomb codes of this order, 0 to 15.  [default: orders of least cost]",
)
@click.option("--keep", multiple=True, metavar="GLOB", help="Tensors to leave as they are. Repeatable.")
@click.option(
    "--protect",
    multiple=True,
    metavar="GLOB",
    help=f"Tensors to code but not to prune, besides the task head; '{NO_PROTECTION}' prunes the head too. Repeatable.",
)
@click.option("--int8", is_flag=True, help="Add a graph for the runtime's mode int8: a quarter of the memory, faster.")
@click.option(
    "--int8-check",
    metavar="DATA",
    help="Do that, and say what int8 costs on data as evaluate takes them, labelled or not.",
)
@click.option("--task", help="Export the model for this task.  [default: what its config.json says]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Package directory.  [default: ./NAME-bsx]")
@click.option("--dry-run", is_flag=True, help="Report what the package would be, and write nothing.")
@click.option("--resume", is_flag=True, help="Go on where a killed run left off, to the same bytes.")
@force_option
@json_option
@quiet_option
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads to use.  [default: all cores]")
@trust_option
def pack(
    model: str,
    prune: float,
    step: str | None,
    scope: Any,
    layout: Any,
    family: Any,
    order: int | None,
    keep: tuple[str, ...],
    protect: tuple[str, ...],
    int8: bool,
    int8_check: str | None,
    task: str | None,
    out: Path | None,
    dry_run: bool,
    resume: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    threads: int | None,
    trust_remote_code: bool,
) -> None:
    """Prune, quantise and code MODEL into a package for devices.

    MODEL is a Hugging Face directory, a hub id or an .onnx file. Example:

    \b
        bsexport pack my-model --prune 0.8 --step 1e-3
    """
    if dry_run and resume:
        raise click.UsageError("--resume goes on with a package, which --dry-run does not write")
    if int8_check is not None:
        if dry_run:
            raise click.UsageError("--int8-check measures the package, which --dry-run does not write")
        check_installed("--int8-check", NEEDED, "measure")
    trained_for = None
    if step is None:
        from bsexport.train.record import trained_step

        trained_for = trained_step(Path(model))
    recipe = Recipe(
        prune=prune,
        scope=scope,
        step=parse_step(step) if step is not None else trained_for or DEFAULT_STEP,
        layout=layout,
        family=family,
        order=order,
        keep=keep,
        protect=protect,
    )
    from bsexport.package import PackageWriter
    from bsexport.pipeline import pack as pack_model
    from bsexport.source import default_name, open_source
    from bsexport.table import report_text
    from bsexport_runtime.session import available_cores

    out = out or Path(f"{default_name(model)}-bsx")
    if not dry_run:
        PackageWriter(out, force=force, resume=resume).check()
    threads = threads or available_cores()
    cost = None
    with (
        tempfile.TemporaryDirectory(prefix="bsexport-") as scratch,
        progress_bar(hidden=quiet or as_json) as progress,
    ):
        progress("reading", 0)
        source = open_source(model, task=task, trust_remote_code=trust_remote_code)
        check = None
        if int8_check is not None:
            from bsexport.evaluate import int8 as int8_cost  # needs what packing does not

            check = int8_cost.prepare(source, int8_check, Path(scratch))
        report = pack_model(
            source,
            recipe,
            None if dry_run else out,
            int8=int8 or check is not None,
            force=force,
            resume=resume,
            threads=threads,
            progress=progress,
        )
        if check is not None:
            cost = int8_cost.compare(out, check, Path(scratch), threads, progress)
    if as_json:
        extra = {} if cost is None else {"int8_check": cost}
        echo_json({"out": None if dry_run else str(out), **report.to_json(), **extra})
    elif not quiet:
        click.echo(f"{click.format_filename(model)} -> {'nothing written (dry run)' if dry_run else out}")
        if trained_for is not None:
            click.echo(f"step {trained_for:g}, which the model was trained for")
        click.echo(report_text(report))
        if cost is not None:
            click.echo(int8_cost.to_text(cost))
