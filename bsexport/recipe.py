"""What pack is told to do: validated once, frozen, written into the manifest and read back from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import numpy as np

from bsexport.errors import RecipeError

Scope = Literal["global", "tensor", "row"]
LayoutName = Literal["eg", "bm", "rl"]
FamilyName = Literal["eg", "rice"]

DEFAULT_STEP = 2.0**-8
NO_PROTECTION = "none"
FEWEST_WEIGHTS = 1024  # smaller tensors cost more side information than they save


def parse_step(text: str) -> float:
    """The step that a user wrote: a decimal number ("1e-3") or a power ("2^-8").

    Raises RecipeError if it is not a finite number above zero.
    """
    base, caret, exponent = text.partition("^")
    try:
        value = float(base) ** float(exponent) if caret else float(base)
    except (ValueError, ZeroDivisionError, OverflowError):
        value = math.nan
    if isinstance(value, complex):
        value = math.nan
    return nearest_step(value, text)


def nearest_step(value: float, text: str | None = None) -> float:
    """The float32 nearest to a step, as a Python float. Raises RecipeError unless it is finite and above zero."""
    with np.errstate(over="ignore"):
        step = float(np.float32(value))
    if not (math.isfinite(step) and step > 0):
        raise RecipeError(
            f"step {text or value} cannot be used: expected a number above 0 that float32 holds, such as 1e-3 or 2^-8"
        )
    return step


def step_text(step: float) -> str:
    """A step as a user would write it: "2^-8", or the shortest decimal number whose nearest float32 it is."""
    fraction, exponent = math.frexp(step)
    return f"2^{exponent - 1}" if fraction == 0.5 else str(np.float32(step))


@dataclass(frozen=True)
class Recipe:
    """How a model is pruned, quantised and coded.

    prune: share of the weights that take part to set to zero, 0 <= prune < 1.
    scope: among which weights the smallest are sought: "global" (all that take part), "tensor" or "row" (dimension 0).
    step: the quantiser's width; the float32 nearest to what was given.
    layout: every tensor's: "eg", "bm" or "rl"; None: the one of least cost.
    family: of every code: "eg" (exp-Golomb, the paper's) or "rice" (Golomb-Rice); None: the one of least cost.
    order: exp-Golomb order of every tensor's levels, 0 to 15, in the EG layout; None: the order of least cost.
    keep: globs on tensor names; what matches is neither pruned nor coded.
    protect: globs on tensor names; what matches is coded but not pruned. The task head is protected too, unless one
        of the globs is "none".

    Raises RecipeError for a value that cannot be used.
    """

    prune: float = 0.0
    scope: Scope = "global"
    step: float = DEFAULT_STEP
    layout: LayoutName | None = None
    family: FamilyName | None = None
    order: int | None = None
    keep: tuple[str, ...] = ()
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.prune < 1:
            raise RecipeError(f"prune {self.prune} cannot be used: expected a ratio from 0 up to, but not including, 1")
        if self.scope not in get_args(Scope):
            raise RecipeError(f"scope {self.scope!r} is unknown: expected one of {', '.join(get_args(Scope))}")
        if self.order is not None and not 0 <= self.order <= 15:
            raise RecipeError(f"order {self.order} cannot be used: expected 0 to 15")
        for what, value, names in (
            ("layout", self.layout, get_args(LayoutName)),
            ("family", self.family, get_args(FamilyName)),
        ):
            if value is not None and value not in names:
                raise RecipeError(f"{what} {value!r} is unknown: expected one of {', '.join(names)}")
            if value not in (None, "eg") and self.order is not None:
                raise RecipeError(f"order {self.order} stands for {what} eg: leave out {what} {value} or the order")
        object.__setattr__(self, "step", nearest_step(self.step))

    def keeps(self, names: Iterable[str]) -> bool:
        """Whether the tensor of these names (its own and its ties') is neither pruned nor coded."""
        return matches(self.keep, names)

    def protects(self, names: Iterable[str], *, head: bool) -> bool:
        """Whether the tensor of these names is coded but not pruned."""
        return (head and NO_PROTECTION not in self.protect) or matches(self.protect, names)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Recipe:
        """The recipe of a manifest. Raises RecipeError if it has other fields than this version knows."""
        return cls(**fields_of("the recipe", cls, value))


def fields_of(what: str, kind: Any, value: dict[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass from JSON, where tuples are lists. Raises RecipeError if they are not its fields."""
    known = {field.name for field in fields(kind)}
    if set(value) != known:
        raise RecipeError(f"{what} has the fields {sorted(value)}: expected {sorted(known)}")
    return {key: tuple(each) if isinstance(each, list) else each for key, each in value.items()}


def why_too_small(shape: Sequence[int]) -> str:
    """Why a tensor of this shape is neither pruned nor coded, or "" if it is."""
    if sum(dimension > 1 for dimension in shape) < 2:
        return "1-D"
    if math.prod(shape) < FEWEST_WEIGHTS:
        return f"fewer than {FEWEST_WEIGHTS} weights"
    return ""


def matches(globs: Iterable[str], names: Iterable[str]) -> bool:
    """Whether any of the names matches any of the globs, case and all."""
    names = list(names)
    return any(fnmatchcase(name, glob) for glob in globs for name in names)
