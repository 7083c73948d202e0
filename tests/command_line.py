"""The command line, run in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from bsexport.cli import main


def bsexport(*arguments: object) -> Result:
    """Run the command line in this process; an exception that is not an exit fails the test."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def refused(*arguments: object) -> str:
    """The one line on stderr of a command that must fail on bad input, and print nothing else."""
    result = bsexport(*arguments)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
