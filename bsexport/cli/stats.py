"""bsexport stats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bsexport.cli.options import (
    check_installed,
    echo_json,
    force_option,
    json_option,
    progress_bar,
    quiet_option,
    trust_option,
)
from bsexport.recipe import Recipe, parse_step

_NEEDED = ("torch", "scipy", "safetensors")


@click.command()
@click.argument("model")
@click.option("--prune", type=float, default=0.0, show_default=True, help="Share of the weights to set to zero first.")
@click.option(
    "--step",
    help="Quantiser step: a number such as 1e-3, or 2^-8.  [default: what pack or train was told, else 2^-8]",
)
@click.option(
    "--task",
    help="Take the weights that this task's graph uses, which takes an export.  [default: those of the checkpoint]",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Directory for stats.json, stats.csv and plots.")
@force_option
@json_option
@quiet_option
@trust_option
def stats(
    model: str,
    prune: float,
    step: str | None,
    task: str | None,
    out: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    trust_remote_code: bool,
) -> None:
    """Show how the weights of MODEL are distributed, and what codes make of them.

    MODEL is a Hugging Face directory, a hub id, an .onnx file or a package. For all weights together and for each
    tensor: the shape and scale of the generalized Gaussian that fits them (the paper's figure 1), how many bits/weight
    a code made for it would lose, and the bits/weight of fixed-length, Huffman, exp-Golomb (its table 3) and
    Golomb-Rice codes and of what pack writes. Example:

    \b
        bsexport stats my-model --prune 0.8 --step 1e-3 -o my-model-stats
    """
    check_installed("stats", (*_NEEDED, "matplotlib") if out is not None else _NEEDED, "measure")
    from bsexport.output import check_output
    from bsexport.stats.files import is_stats, write
    from bsexport.stats.run import stats as figures_of
    from bsexport.stats.source import open_weights
    from bsexport.stats.table import stats_text
    from bsexport_runtime.session import available_cores

    chosen: dict[str, Any] = {"prune": prune} | ({} if step is None else {"step": parse_step(step)})
    Recipe(**chosen)  # refuses what cannot be used before anything is read
    if out is not None:
        check_output(out, force=force, replaceable=is_stats)
    with progress_bar(hidden=quiet or as_json) as progress:
        progress("reading", 0)
        weights = open_weights(model, task=task, trust_remote_code=trust_remote_code)
        found = figures_of(weights, replace(weights.recipe, **chosen), threads=available_cores(), progress=progress)
    if out is not None:
        write(found, out, force=force)
    if as_json:
        echo_json({"out": None if out is None else str(out), **found.to_json()})
    elif not quiet:
        click.echo(stats_text(found))
        if out is not None:
            click.echo(f"{click.format_filename(model)} -> {out}")
