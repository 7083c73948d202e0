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
    start_token: with which a decoder begins that follows an encoder. stop_tokens: that end a text.
    pad_token: for what is no text. None: the model names none.
    """

    positions: int | None = None
    start_token: int | None = None
    stop_tokens: tuple[int, ...] = ()
    pad_token: int | None = None


def read_language(package: Package) -> Language:
    """What the package's config.json and generation_config.json say, as far as they are there; the latter counts more.

    Raises PackageError if one of them says what is no number.
    """
    config = _read(package, CONFIG)
    config = config | _object(config.get("text_config"))  # of models for text and more
    tokens = config | {name: value for name, value in _read(package, GENERATION_CONFIG).items() if value is not None}
    stops = tokens.get("eos_token_id")
    stops = stops if isinstance(stops, list) else [stops]
    sizes = [_natural(package, config, name) for name in _POSITIONS if _RELATIVE not in config]
    return Language(
        positions=next((size for size in sizes if size), None),
        start_token=_natural(package, tokens, "decoder_start_token_id"),
        stop_tokens=tuple(
            token for stop in stops if (token := _natural(package, {"eos_token_id": stop}, "eos_token_id")) is not None
        ),
        pad_token=_natural(package, tokens, "pad_token_id"),
    )


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
        raise PackageError(f"{package.path / CONFIG}: {name} is {value!r:.40}, expected a whole number")
    return value if value >= 0 else None
