"""Run batches through a session of the device's runtime, and measure what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from bsexport.errors import DataError, SourceError
from bsexport.evaluate.measure import Array, Batch, Measure
from bsexport.run import answer, answers_of
from bsexport_runtime.session import Session

_HINT = "the data may not suit the model, or its tokenizer be another model's"


def evaluate(
    session: Session, batches: Iterable[Batch], measure: Measure, done: Callable[[int], object] = lambda examples: None
) -> Array:
    """The measure's statistics of every example, float64 [examples, statistics], in the order of the examples.

    done: told of the examples of each batch when it is over. Raises SourceError if the model refuses its inputs,
    DataError if the data ask nothing of it.
    """
    return in_order(answered(session, batches, measure, done), measure)


def answered(
    session: Session, batches: Iterable[Batch], measure: Measure, done: Callable[[int], object]
) -> list[tuple[Array, Array]]:
    """Of each batch, which of all examples it has, and their statistics. done: see evaluate."""
    found = []
    for batch in batches:
        found.append((batch.rows, measure.statistics(outputs(session, batch, measure), batch)))
        done(len(batch.rows))
    return found


def in_order(found: Iterable[tuple[Array, Array]], measure: Measure) -> Array:
    """What `answered` found in all batches, as `evaluate` gives it."""
    rows, parts = zip(*found, strict=True)
    statistics = np.concatenate(parts)
    if math.isnan(measure.figures(statistics)[measure.primary]):
        raise DataError("the data ask nothing of the model, such as texts of no words, or --max-length too small")
    return statistics[np.argsort(np.concatenate(rows))]


def refer(session: Session, batches: Iterable[Batch], measure: Measure) -> Iterator[Batch]:
    """The batches, each with what the measure needs of this session's outputs: that of the dense model."""
    for batch in batches:
        yield replace(batch, known=batch.known | measure.reference(outputs(session, batch, measure), batch))


def outputs(session: Session, batch: Batch, measure: Measure) -> dict[str, Array]:
    """Those outputs of a batch that the measure wants, by name."""
    found = answer(session, batch.feeds, _HINT, measure.wanted(answers_of(session)))
    for name, values in found.items():
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise SourceError(f"the model gives {name} that are NaN; it cannot be measured like that")
    return found
