"""Class labels: those that data hold, and the ids that a model's head gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bsexport.errors import DataError
from bsexport.tasks.data import Data

Value = str | int  # as data hold a label; truth values are 0 and 1

_SHOWN = 8


@dataclass(frozen=True)
class Labels:
    """names: of the head's classes, by id. ids: the value of a label in data -> its id."""

    names: tuple[str, ...]
    ids: dict[Value, int]


def distinct(data: Data, column: str) -> tuple[list[Value], dict[Value, str]]:
    """The labels that a column of labels, or of lists of them, holds, in order, and each one's name.

    Raises DataError if they are neither text nor whole numbers.
    """
    import pyarrow.compute as pc

    stored = data.rows.data.column(column)
    if "list" in str(stored.type):
        stored = pc.list_flatten(stored)
    kind = str(stored.type)
    if kind not in ("string", "large_string", "bool") and not kind.startswith(("int", "uint")):
        raise DataError(
            f"{data.name}: column {column!r} holds {kind}, expected labels: names or whole numbers from 0 up"
        )
    if stored.null_count:
        raise DataError(f"{data.name}: column {column!r} lacks {stored.null_count} of {len(stored)} labels")
    values: list[Value] = sorted(
        value if isinstance(value, str) else int(value) for value in pc.unique(stored).to_pylist()
    )
    feature = data.rows.features[column]
    named = getattr(getattr(feature, "feature", feature), "names", None)  # of a ClassLabel, or a list of them
    return values, {value: named[value] if named else str(value) for value in values}


def match(data: Data, column: str, head: tuple[str, ...] | None) -> Labels:
    """Labels of data as a head's classes.

    head: the names of the classes that the model's head has learnt, by id; None for a new head, which gets a class for
    each label. Labels are matched by their names, or if they are whole numbers that are not names, taken as ids.
    Raises DataError if they do not match, or a new head would have but one class.
    """
    values, names = distinct(data, column)
    if head is None:
        if len(values) < 2:
            raise DataError(
                f"{data.name}: column {column!r} holds only {shown(names.values())}, expected two labels or more"
            )
        return Labels(tuple(names[value] for value in values), {value: index for index, value in enumerate(values)})
    by_name = {name: index for index, name in enumerate(head)}
    if all(names[value] in by_name for value in values):
        return Labels(head, {value: by_name[names[value]] for value in values})
    if all(isinstance(value, int) and 0 <= value < len(head) and names[value] == str(value) for value in values):
        return Labels(head, {value: int(value) for value in values})
    raise DataError(
        f"{data.name}: column {column!r} holds {shown(names.values())}, but the model's head has the classes "
        f"{shown(head)}; give data with these, or a model without this head"
    )


def shown(names: Any) -> str:
    """Some names, to be read in a line."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
