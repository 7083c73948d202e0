"""Records: JSON files that say what they are, such as curve.json, and what they hold in common."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bsexport import __version__


def read_record(path: Path, kind: str) -> dict[str, Any] | None:
    """The record in a file whose "format" is of this kind; None if there is no such."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == kind else None


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record. Raises ValueError for a number that JSON cannot hold, see `finite`."""
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def finite(value: Any) -> Any:
    """The value with None for each number that JSON cannot hold."""
    match value:
        case dict():
            return {key: finite(each) for key, each in value.items()}
        case list() | tuple():
            return [finite(each) for each in value]
        case float() if not math.isfinite(value):
            return None
    return value


def versions(names: Iterable[str]) -> dict[str, str]:
    """Of bsexport, and of those of the named distributions that are installed."""
    found = {"bsexport": __version__}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
