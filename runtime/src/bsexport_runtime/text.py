"""Texts to tokens and back, with the tokenizer that a package carries; it takes the library `tokenizers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bsexport_runtime.errors import BsexportRuntimeError, PackageError
from bsexport_runtime.package import Package

if TYPE_CHECKING:
    import tokenizers

TOKENIZER = "tokenizer.json"

_PIECES = "\ufffd"  # what a decoder writes for bytes that are no whole character


def tokenizer(path: str | Path) -> tokenizers.Tokenizer:
    """The tokenizer of the package at `path`, which neither cuts nor pads.

    Raises PackageError if the package has none or it is damaged, and BsexportRuntimeError if the library `tokenizers`
    is not installed; `generate` takes the numbers of tokens without either.
    """
    package = Package(path)
    if TOKENIZER not in package.files:
        raise PackageError(f"{package.path}: holds no {TOKENIZER}; give the numbers of tokens to generate yourself")
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise BsexportRuntimeError(
            f"{package.path / TOKENIZER} needs the library tokenizers: pip install tokenizers, or give the numbers of "
            "tokens to generate yourself"
        ) from error
    try:
        found = tokenizers.Tokenizer.from_buffer(package.read_bytes(TOKENIZER))
    except ValueError as error:
        raise PackageError(f"{package.path / TOKENIZER}: is no tokenizer: {' '.join(str(error).split())}") from error
    found.no_truncation()
    found.no_padding()
    return found


class TextStream:
    """The text of tokens that come one by one, as far as it is certain.

    decode: the text of tokens, such as tokenizer(path).decode.
    before: tokens that they follow, of a prompt; what they say is not told, but what comes may depend on them.

    Some tokens are only pieces of a character, which is held back until it is whole. The parts together are the text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], before: Sequence[int] = ()) -> None:
        self._decode = decode
        self._tokens = list(before)  # from the last ones that were shown on
        self._shown = len(before)  # of them

    def add(self, token: int) -> str:
        """What the next token adds; may be empty."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        return "" if text.endswith(_PIECES) else self._show(text)

    def end(self) -> str:
        """What is still held back, when no more tokens come."""
        return self._show(self._decode(self._tokens))

    def _show(self, text: str) -> str:
        new = text[len(self._decode(self._tokens[: self._shown])) :]
        if new:
            del self._tokens[: self._shown]
            self._shown = len(self._tokens)
        return new
