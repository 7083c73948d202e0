"""The page of the command line is what the commands say."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import bsexport

from bsexport.cli import main
from bsexport.cli.docs import cli_page, help_texts

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "cli.md"


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == cli_page(), "run python -m bsexport.cli.docs > docs/cli.md"


def test_the_module_prints_the_page() -> None:
    done = subprocess.run([sys.executable, "-m", "bsexport.cli.docs"], capture_output=True, text=True, check=True)
    assert done.stdout == cli_page()


def test_the_page_is_the_same_on_any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    page = cli_page()
    monkeypatch.setenv("COLUMNS", "40")
    assert cli_page() == page


def test_every_command_has_an_example_that_parses() -> None:
    for name, command in main.commands.items():
        examples = re.findall(rf"^ +bsexport ({name} .*)$", command.help or "", re.MULTILINE)
        assert examples, name
        for example in examples:
            arguments = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', example)]
            command.make_context(name, arguments[1:])


def test_every_option_has_help() -> None:
    for name, command in main.commands.items():
        options = [option for option in command.params if isinstance(option, click.Option)]
        assert all(option.help and option.help[0].isupper() for option in options), name
        page = dict(help_texts(main, "bsexport"))[f"bsexport {name}"]
        assert all(spelling in page for option in options for spelling in option.opts), name


def commands(page: Path) -> list[str]:
    """What a page's consoles run."""
    consoles = re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for console in consoles for line in console.splitlines() if line.startswith("$ ")]


def test_the_commands_of_measuring_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in ("datasets", "joblib", "matplotlib", "scipy"):
        pytest.importorskip(needed, reason=f"NOT TESTED: measuring needs {needed}")
    from hf_models import LABELS, save_bert

    monkeypatch.chdir(tmp_path)
    for name in ("my-model", "normal-model", "sparse-model"):
        save_bert(tmp_path / name, "text-classification")
    assert bsexport("pack", "my-model").exit_code == 0
    with Path("test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((f"the film was {label}", label) for label in 20 * LABELS)])
    Path("reviews.txt").write_text("the film was fine\nwho wrote it\n")
    run = commands(DOCS / "measuring.md")
    assert {command.split()[1] for command in run} == {"curve", "evaluate", "bench", "fit", "stats"}
    for command in run:
        result = bsexport(*shlex.split(command)[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
