"""bsexport reproduce."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from bsexport.cli.measuring import NEEDED
from bsexport.cli.options import check_installed, echo_json, json_option, quiet_option

_TABLES = ("strength", "table3", "table4", "table5", "table6", "quantisation", "pruning")


@click.command()
@click.argument("tables", nargs=-1, type=click.Choice([*_TABLES, "all"]), metavar="TABLE...")
@click.option(
    "--profile",
    type=click.Choice(["tiny", "small", "paper"]),
    default="tiny",
    show_default=True,
    help="A made-up language in minutes; a model and data of yours in an hour or two; the paper's, on GPUs.",
)
@click.option("--model", help="Directory, hub id or config.json of an encoder, in place of the profile's models.")
@click.option("--language-model", metavar="MODEL", help="A causal one, for the sets of table 5 that tell next tokens.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with any of imdb, enron_spam, newsgroups20, squad and wmt19, each with train.* and test.*.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of training.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder to work in.  [default: ./reproduce-PROFILE]")
@json_option
@quiet_option
def reproduce(
    tables: tuple[str, ...],
    profile: str,
    model: str | None,
    language_model: str | None,
    data: Path | None,
    seed: int,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the paper's experiments and print each TABLE beside the paper's own figures.

    TABLE is strength (of the rate), table3 (orders of exp-Golomb), table4 (models), table5 (sets of data), table6
    (regularisers), quantisation, pruning, or all. Models are trained and measured by train, stats and curve; tables
    share them, and what is in the folder already is not run again, so that a killed run goes on. Example:

    \b
        bsexport reproduce all --profile small --model all-MiniLM-L6-v2 --data sets

    The folder then holds the trained models, the curves, and tables.md.
    """
    check_installed("reproduce", (*NEEDED, "accelerate", "scipy"), "train,measure")
    from bsexport.reproduce.profiles import choose
    from bsexport.reproduce.runs import Laboratory, write_tables
    from bsexport.reproduce.tables import TABLES

    if not tables:
        raise click.UsageError(f"name a table: {', '.join(_TABLES)}, or all")
    out = out or Path(f"reproduce-{profile}")
    chosen = choose(profile, out, data, model, language_model)
    shown = not (quiet or as_json) and sys.stderr.isatty()
    laboratory = Laboratory(chosen, out, seed, lambda line: click.echo(line, err=True) if shown else None)
    names = list(TABLES) if "all" in tables else list(dict.fromkeys(tables))
    made = {}
    for name in names:
        made[name] = TABLES[name](laboratory)
        write_tables(out, [table.to_text() for table in made.values()])
        if not as_json and not quiet:
            click.echo(made[name].to_text() + "\n")
    if as_json:
        echo_json({"out": str(out), **{name: asdict(table) for name, table in made.items()}})
