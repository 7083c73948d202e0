"""docs/cli.md from the commands themselves: python -m bsexport.cli.docs > docs/cli.md."""

from __future__ import annotations

from collections.abc import Iterator

import click

from bsexport.cli import main

WIDTH = 100

INTRODUCTION = """\
# The command line

This page is generated from the commands: `python -m bsexport.cli.docs > docs/cli.md`. A test fails when it is stale.

Results go to stdout, everything else (errors, warnings, progress on a terminal) to stderr. Exit codes: 0 done; 1 bad
input or a failed check, with one line on stderr that says which; 2 wrong usage; 130 interrupted.
"""


def cli_page() -> str:
    """docs/cli.md: the introduction and the help of every command, as --help prints it."""
    sections = [f"## {name}\n\n```text\n{text}\n```\n" for name, text in help_texts(main, "bsexport")]
    return "\n".join([INTRODUCTION, *sections])


def help_texts(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """The full name and the help of a command, then of its subcommands in their order."""
    settings = {**command.context_settings, "terminal_width": WIDTH}
    with click.Context(command, info_name=name.split()[-1], parent=parent, **settings) as context:
        yield name, command.get_help(context).rstrip()
        for subcommand in getattr(command, "commands", {}).values():
            yield from help_texts(subcommand, f"{name} {subcommand.name}", context)


if __name__ == "__main__":
    click.echo(cli_page(), nl=False)
