"""The pruning ratios and steps that a user names."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from itertools import product

from bsexport.errors import RecipeError
from bsexport.recipe import Recipe, parse_step

MOST = 10_000  # points of a range


def parse_ratios(text: str) -> tuple[float, ...]:
    """The ratios of "0:0.95:0.05" (first, last included, increment) or "0,0.5,0.8", or both together, rising.

    Raises RecipeError.
    """
    ratios: set[float] = set()
    for part in text.split(","):
        try:
            numbers = [Decimal(number) for number in part.split(":")]
            finite = all(number.is_finite() for number in numbers)
        except InvalidOperation:
            finite = False
        if not finite or len(numbers) not in (1, 3):
            raise RecipeError(f"--prune {text!r}: cannot be read; write it like 0:0.95:0.05 or 0,0.5,0.8")
        ratios.update(map(float, _range(text, *numbers) if len(numbers) == 3 else numbers))
    for ratio in ratios:
        Recipe(prune=ratio)  # says what a ratio has to be
    return tuple(sorted(ratios))


def _range(text: str, first: Decimal, last: Decimal, increment: Decimal) -> Iterable[Decimal]:
    if increment <= 0 or last < first:
        raise RecipeError(f"--prune {text!r}: expected a range first:last:increment that rises")
    count = int((last - first) / increment) + 1
    if count > MOST:
        raise RecipeError(f"--prune {text!r}: has {count} points, expected at most {MOST}")
    return (first + index * increment for index in range(count))


def parse_steps(text: str) -> tuple[float, ...]:
    """The steps of "2^-4,2^-5,1e-3", falling. Raises RecipeError."""
    return tuple(sorted({parse_step(part) for part in text.split(",")}, reverse=True))


def grid(ratios: tuple[float, ...], steps: tuple[float, ...]) -> list[tuple[float, float]]:
    """Every ratio at every step."""
    return [(ratio, step) for step, ratio in product(steps, ratios)]
