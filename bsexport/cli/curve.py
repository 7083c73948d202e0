"""bsexport curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bsexport.cli.measuring import NEEDED, asked_of, data_options
from bsexport.cli.options import (
    check_installed,
    echo_json,
    first_speaks,
    force_option,
    json_option,
    progress_bar,
    quiet_option,
    trust_option,
)
from bsexport.errors import RecipeError
from bsexport.recipe import DEFAULT_STEP, NO_PROTECTION, Recipe


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@data_options("what train was told, else 128")
@click.option(
    "--prune",
    default="0:0.95:0.05",
    show_default=True,
    metavar="RATIOS",
    help="Ratios to measure at: first:last:increment, or a list.",
)
@click.option(
    "--step",
    metavar="STEPS",
    help="Steps to measure at, such as 2^-8 or 2^-4,2^-5,1e-3.  [default: what train was told, else 2^-8]",
)
@click.option(
    "--scope",
    default="global",
    show_default=True,
    help="As in pack.",
    type=click.Choice(["global", "tensor", "row"]),
)
@click.option("--keep", multiple=True, metavar="GLOB", help="Tensors to leave as they are. Repeatable.")
@click.option(
    "--protect",
    multiple=True,
    metavar="GLOB",
    help=f"Tensors not to prune, besides the task head; '{NO_PROTECTION}' prunes the head too. Repeatable.",
)
@click.option("--bench", is_flag=True, help="Measure load time, memory and latency of each point, too.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Directory of the curves.  [default: ./NAME-curve]")
@click.option("--resume", is_flag=True, help="Go on where a killed sweep left off.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Points at a time.  [default: cores, or workers]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of each point.")
@click.option(
    "--backend",
    type=click.Choice(["loky", "dask", "ray"]),
    default="loky",
    show_default=True,
    help="Processes of this machine, or of a cluster that sees the same files.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Of the dask scheduler or the ray cluster.")
@force_option
@json_option
@quiet_option
@trust_option
def curve(models: tuple[str, ...], **options: Any) -> None:
    """Measure what pruning and quantising do to each MODEL's answers.

    Every point is packed and run through the device's runtime. Data with labels are measured by the task's own
    figure, data without by how near the outputs stay to the dense model's. Several models overlay. Example:

    \b
        bsexport curve normal-model sparse-model --data test.csv --prune 0:0.95:0.05 --step 2^-8

    The directory holds curve.html, curve.svg, curve.png, curve.csv and curve.json. A killed sweep leaves what it
    measured in DIR.partial.
    """
    check_installed("curve", NEEDED, "measure")
    from bsexport.curve.grid import grid, parse_ratios, parse_steps
    from bsexport.curve.run import Settings
    from bsexport.curve.run import curve as run
    from bsexport.curve.sweep import Backend
    from bsexport.source import default_name
    from bsexport.train.record import trained_length, trained_step

    if options["scheduler"] and options["backend"] == "loky":
        raise click.UsageError("--scheduler goes with --backend dask or ray")
    if options["backend"] == "dask" and not options["scheduler"]:
        raise click.UsageError("--backend dask takes the address of a cluster: give --scheduler")
    if options["backend"] != "loky" and options["jobs"]:
        raise click.UsageError("--jobs is for this machine; a cluster has as many as it has workers")
    ratios = parse_ratios(options["prune"])
    steps = parse_steps(options["step"]) if options["step"] else None
    lengths = {trained_length(Path(model)) for model in models}
    if len(lengths) > 1 and options["max_length"] is None:
        told = ", ".join(f"{model} {trained_length(Path(model)) or 'no'}" for model in models)
        raise RecipeError(f"the models were trained on texts of other lengths ({told} tokens): give --max-length")
    settings = Settings(
        models=models,
        data=options["data"],
        split=options["split"],
        grids=tuple(tuple(grid(ratios, steps or (trained_step(Path(model)) or DEFAULT_STEP,))) for model in models),
        recipe=Recipe(scope=options["scope"], keep=options["keep"], protect=options["protect"]),
        asked=asked_of(options, next(iter(lengths))),
        batch_size=options["batch_size"],
        out=options["out"] or Path(f"{default_name(models[0])}-curve"),
        bench=options["bench"],
        backend=Backend(options["backend"], options["scheduler"], options["jobs"], options["threads"]),
        resume=options["resume"],
        force=options["force"],
        trust_remote_code=options["trust_remote_code"],
    )
    with first_speaks(), progress_bar(hidden=options["quiet"] or options["as_json"]) as progress:
        record = run(settings, progress)
    if options["as_json"]:
        echo_json({"out": str(settings.out), **record})
    elif not options["quiet"]:
        for model in record["models"]:
            click.echo(f"{model['name']}:")
            for finding in model["findings"]:
                click.echo(f"  {finding['text']}")
                if finding["command"]:
                    click.echo(f"    {finding['command']}")
        click.echo(f"{settings.out}: curve.html, curve.svg, curve.png, curve.csv, curve.json")
