"""Fields of a manifest, checked as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from bsexport_runtime.errors import PackageError

AGAIN = "copy the package again"


def typed(entry: dict[str, Any], key: str, kind: type, where: Path) -> Any:
    """The value of a field, which must be of that type; only `bool` takes true and false. Raises PackageError."""
    value = entry.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        found = "missing" if value is None else type(value).__name__
        refuse(where, f"{key} is {found}, expected {kind.__name__}")
    return value


def natural(entry: dict[str, Any], key: str, where: Path) -> int:
    """The value of a field that is a size or a number of things. Raises PackageError."""
    value: int = typed(entry, key, int, where)
    if not 0 <= value < 1 << 62:
        refuse(where, f"{key} is {value if value.bit_length() < 100 else 'a huge number'}, expected a size")
    return value


def refuse(where: Path, wrong: str) -> NoReturn:
    """Raise the PackageError for a manifest in which something is wrong."""
    raise PackageError(f"{where}: {wrong}; {AGAIN}")


def printable(name: str) -> str:
    """A name from outside on one line: as it is, unless it has line breaks or other characters that do not print."""
    return name if name.isprintable() else ascii(name)
