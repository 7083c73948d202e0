"""bsexport run --prompt."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import bsexport, refused
from make_package import LANGUAGE_PACKAGE, PACKAGE

import bsexport_runtime

PROMPT = "the é"
NEW = 16
SPEED = r"prompt: 4 tokens, [\d.]+ tokens/s; text: \d+ tokens, [\d.]+ tokens/s\n"


def expected_text(mode: str = "float32") -> str:
    tokenizer = bsexport_runtime.tokenizer(LANGUAGE_PACKAGE)
    ids = tokenizer.encode(PROMPT).ids
    tokens = bsexport_runtime.generate(bsexport_runtime.load(LANGUAGE_PACKAGE, mode=mode), ids, NEW)
    return str(tokenizer.decode(tokens[0].tolist()))


def test_it_streams_text_and_then_says_how_fast() -> None:
    for mode in ("float32", "coded"):
        command = ("run", LANGUAGE_PACKAGE, "--prompt", PROMPT, "--max-new-tokens", NEW, "--mode", mode)
        result = bsexport(*command)
        assert result.exit_code == 0
        assert result.stdout == expected_text(mode) + "\n"
        assert re.fullmatch(SPEED, result.stderr), result.stderr


def test_as_json() -> None:
    result = bsexport("run", LANGUAGE_PACKAGE, "--prompt", PROMPT, "--max-new-tokens", NEW, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["text"] == expected_text()
    assert found["prompt_tokens"] == 4
    assert 0 < len(found["tokens"]) <= NEW
    assert found["prompt_seconds"] > 0 < found["seconds"]


def test_drawn_text_is_told_by_its_seed() -> None:
    def drawn(*options: object) -> list[int]:
        command = ("run", LANGUAGE_PACKAGE, "--prompt", PROMPT, "--json", "--temperature", 20, *options)
        return list(json.loads(bsexport(*command).stdout)["tokens"])

    assert drawn("--seed", 1) == drawn("--seed", 1) != drawn("--seed", 2)
    assert drawn("--seed", 1, "--top-k", 1) == drawn("--seed", 2, "--top-p", 1e-6)
    assert drawn("--seed", 1, "--repetition-penalty", 100.0) != drawn("--seed", 1)


def test_a_process_of_its_own_prints_text_and_speed_and_no_noise() -> None:
    command = [sys.executable, "-m", "bsexport.cli", "run", str(LANGUAGE_PACKAGE), "--prompt", PROMPT]
    done = subprocess.run([*command, "--max-new-tokens", str(NEW)], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == expected_text() + "\n"
    assert re.fullmatch(SPEED, done.stderr)


def test_what_cannot_be_generated_is_one_line(tmp_path: Path) -> None:
    for arguments, message in (
        ((PACKAGE, "--prompt", "a"), "holds no tokenizer"),
        ((LANGUAGE_PACKAGE, "--prompt", ""), "the prompt makes no tokens"),
        ((LANGUAGE_PACKAGE, "--prompt", "the " * 200), "tokens: the model has 150 positions; shorten the prompt"),
        ((LANGUAGE_PACKAGE, "--prompt", "a", "--max-new-tokens", 0), "max_new_tokens is 0"),
        ((LANGUAGE_PACKAGE, "--prompt", "a", "--max-new-tokens", 150), "the model has 150 positions"),
        ((LANGUAGE_PACKAGE, "--prompt", "a", "--top-k", 3), "give a temperature above 0"),
        ((tmp_path, "--prompt", "a"), "expected a directory made by bsexport pack"),
    ):
        assert message in refused("run", *arguments), arguments


def test_by_default_it_goes_on_as_far_as_there_are_positions() -> None:
    found = json.loads(
        bsexport("run", LANGUAGE_PACKAGE, "--prompt", "the " * 100, "--json", "--temperature", 20).stdout
    )
    assert found["prompt_tokens"] == 101
    assert 0 < len(found["tokens"]) <= 150 - 101


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "a", "--text", "b"], "give one of --text, --image and --prompt"),
        (["--text", "b", "--top-k", "3"], "--top-k goes with --prompt"),
        (["--prompt", "a", "--context", "b"], "--context goes with --text"),
        (["--prompt", "a", "--max-new-tokens", "many"], "is not a valid integer"),
    ],
)
def test_usage(options: list[str], message: str) -> None:
    result = bsexport("run", LANGUAGE_PACKAGE, *options)
    assert result.exit_code == 2
    assert message in result.stderr
