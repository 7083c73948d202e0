"""Texts to tokens and back, and text that comes in pieces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_package import LANGUAGE_PACKAGE, PACKAGE
from test_generate import greedy, package_with

import bsexport_runtime
from bsexport_runtime import BsexportRuntimeError, PackageError, TextStream

EXAMPLE = Path(__file__).parents[2] / "examples" / "generate.py"
BYTES = {1: b"a", 2: "é".encode()[:1], 3: "é".encode()[1:], 4: "€".encode()[:2], 5: "€".encode()[2:], 6: b" b"}


def decode(tokens: Any) -> str:
    """As byte-level tokenizers do."""
    return b"".join(BYTES[token] for token in tokens).decode(errors="replace")


def decode_words(tokens: Any) -> str:
    """As those do that mark the beginnings of words: the first space of a text is left out."""
    return "".join(f" {token}" for token in tokens).removeprefix(" ")


def parts(decoder: Any, tokens: list[int]) -> list[str]:
    stream = TextStream(decoder)
    return [*(stream.add(token) for token in tokens), stream.end()]


def test_pieces_of_a_character_are_held_back() -> None:
    assert parts(decode, [1, 2, 3, 6, 4, 5, 1]) == ["a", "", "é", " b", "", "€", "a", ""]


def test_what_never_becomes_a_character_comes_in_the_end() -> None:
    assert parts(decode, [1, 4]) == ["a", "", "\ufffd"]
    assert parts(decode, [2, 1]) == ["", "\ufffda", ""]
    assert parts(decode, []) == [""]


def test_what_a_token_says_may_depend_on_the_last() -> None:
    assert parts(decode_words, [7, 8, 9]) == ["7", " 8", " 9", ""]


def test_what_follows_a_prompt_keeps_its_space() -> None:
    stream = TextStream(decode_words, [7])
    assert [stream.add(8), stream.add(9), stream.end()] == [" 8", " 9", ""]


def test_the_parts_together_are_the_text() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        tokens = rng.integers(1, 7, 12).tolist()
        assert "".join(parts(decode, tokens)) == decode(tokens), tokens


def test_the_package_s_tokenizer() -> None:
    pytest.importorskip("tokenizers", reason="NOT TESTED: needs tokenizers")
    tokenizer = bsexport_runtime.tokenizer(LANGUAGE_PACKAGE)
    ids = [44, 26, 29, 30, 31, 32, 33, 2, 40]
    assert tokenizer.encode(" the é€cA").ids == ids
    assert parts(tokenizer.decode, [*ids, 41]) == [" the", " ", "", "é", "", "", "€", "c", "A", "", ""]


def test_without_the_library_the_line_says_what_to_do() -> None:
    program = "import sys, bsexport_runtime; sys.modules['tokenizers'] = None; bsexport_runtime.tokenizer(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, str(LANGUAGE_PACKAGE)], capture_output=True, text=True)
    line = done.stderr.strip().splitlines()[-1]
    assert "needs the library tokenizers: pip install tokenizers, or give the numbers of tokens" in line


def test_a_package_without_a_whole_tokenizer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        PackageError, match=r"holds no tokenizer\.json; give the numbers of tokens to generate yourself"
    ):
        bsexport_runtime.tokenizer(PACKAGE)
    pytest.importorskip("tokenizers", reason="NOT TESTED: needs tokenizers")
    with pytest.raises(PackageError, match=r"tokenizer\.json: is no tokenizer: "):
        bsexport_runtime.tokenizer(package_with(tmp_path, {"tokenizer.json": {"version": "1.0"}}))


def test_the_example() -> None:
    pytest.importorskip("tokenizers", reason="NOT TESTED: needs tokenizers")
    command = [sys.executable, str(EXAMPLE), str(LANGUAGE_PACKAGE), "the é"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    ids = [43, 26, 29, 30]
    new = greedy(ids, 64)
    stop = next(place for place, token in enumerate([*new, 41], 1) if token in (41, 13))
    assert done.stdout == "the é" + bsexport_runtime.tokenizer(LANGUAGE_PACKAGE).decode(new[:stop]) + "\n"
    done = subprocess.run(command[:2], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "usage: generate.py PACKAGE TEXT [TEMPERATURE]\n")


def test_no_package_is_one_line() -> None:
    with pytest.raises(BsexportRuntimeError, match="no such package"):
        bsexport_runtime.tokenizer("nowhere")
