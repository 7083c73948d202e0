"""What a package says of the text that its model makes: how much of it, and where it begins and ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bsexport_runtime.errors import PackageError
from bsexport_runtime.package import Package

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"

_POSITIONS = ("max_position_embeddings", "n_positions")  # as the families of models name it
_RELATIVE = "relative_attention_num_buckets"  # of models that know distances only, and have no last position


@dataclass(frozen=True)
class Language:
    """positions: the most tokens that prompt and answer may have together. None: no limit is known.
    stop_tokens: that end a text. pad_token: for what is no text.
    Of an encoder-decoder, start_token: with which its decoder begins. first_token: the first that it makes, whatever
    its logits say, such as a language; last_token: the last one, if a text has not ended before. never_tokens: that it
    does not make.
    None: the model names none.
    """

    positions: int | None = None
    start_token: int | None = None
    stop_tokens: tuple[int, ...] = ()
    pad_token: int | None = None
    first_token: int | None = None
    last_token: int | None = None
    never_tokens: tuple[int, ...] = ()


def read_language(package: Package) -> Language:
    """What the package's config.json and generation_config.json say, as far as they are there; the latter counts more.

    Raises PackageError if one of them says what is no number.
    """
    config = _read(package, CONFIG)
    config = config | _object(config.get("text_config"))  # of models for text and more
    tokens = config | {name: value for name, value in _read(package, GENERATION_CONFIG).items() if value is not None}
    sizes = [_natural(package, config, name) for name in _POSITIONS if _RELATIVE not in config]
    return Language(
        positions=next((size for size in sizes if size), None),
        start_token=next(iter(_naturals(package, tokens, "decoder_start_token_id", "bos_token_id")), None),
        stop_tokens=_naturals(package, tokens, "eos_token_id"),
        pad_token=_natural(package, tokens, "pad_token_id"),
        first_token=_natural(package, tokens, "forced_bos_token_id"),
        last_token=next(iter(_naturals(package, tokens, "forced_eos_token_id")), None),
        never_tokens=_single(tokens.get("bad_words_ids")),
    )


def _naturals(package: Package, config: Mapping[str, Any], *names: str) -> tuple[int, ...]:
    """The numbers under those names, each of which may hold a list of them."""
    held = [(name, each) for name in names for each in _list(config.get(name))]
    numbers = [_natural(package, {name: each}, name) for name, each in held]
    return tuple(number for number in numbers if number is not None)


def _single(words: Any) -> tuple[int, ...]:
    """Those of the words, each a list of tokens, that are one token."""
    found = [word[0] for word in _list(words) if isinstance(word, list) and len(word) == 1]
    return tuple(token for token in found if isinstance(token, int) and token >= 0)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _read(package: Package, name: str) -> dict[str, Any]:
    if name not in package.files:
        return {}
    try:
        return _object(json.loads(package.read_bytes(name)))
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{package.path / name}: is no JSON; pack the model again with a whole one") from error


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _natural(package: Package, config: Mapping[str, Any], name: str) -> int | None:
    """A number of things or of a token; None if it is not there, or below 0, as some configurations say so."""
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        said = f"{name} in {CONFIG} or {GENERATION_CONFIG} is {value!r:.40}"
        raise PackageError(f"{package.path}: {said}, expected a whole number; pack the model again with one")
    return value if value >= 0 else None
