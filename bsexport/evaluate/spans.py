"""F1 of named spans, as in CoNLL, and accuracy of the words' classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bsexport.evaluate.measure import Array, Batch, Measure
from bsexport.tasks.task import IGNORED

_OUTSIDE = "O"


@dataclass(frozen=True)
class Spans(Measure):
    """Statistics of a text: spans told rightly, told, there; words told rightly, words.

    names: of the classes, by id. Names that begin with B- and I- (or S- and E-) make spans as conlleval has them;
    of any other names, each word that is not "O" is a span of its own.
    """

    names: tuple[str, ...]

    name: ClassVar = "spans"
    primary: ClassVar = "f1"
    outputs: ClassVar = ("logits",)
    rank: ClassVar = 3

    def statistics(self, outputs: dict[str, Array], batch: Batch) -> Array:
        rows = []
        prefixed = all(map(is_prefixed, self.names))
        given = batch.unpadded(outputs["logits"].argmax(-1))
        for told, labels in zip(given, batch.known["labels"], strict=True):
            there = np.asarray(labels)
            counted = there != IGNORED
            told_spans, there_spans = (
                set(spans([self.names[id] for id in ids[counted]], prefixed=prefixed)) for ids in (told, there)
            )
            right = int((told == there)[counted].sum())
            rows.append((len(told_spans & there_spans), len(told_spans), len(there_spans), right, int(counted.sum())))
        return np.array(rows, np.float64)

    def figures(self, statistics: Array) -> dict[str, float]:
        hits, told, there, right, words = statistics.sum(0)
        return {"f1": float(2 * hits / (told + there)) if told + there else 1.0, "accuracy": float(right / words)}


def is_prefixed(name: str) -> bool:
    """Whether a class is "O", or begins with B-, I-, E- or S-."""
    return name == _OUTSIDE or (len(name) > 2 and name[1] == "-" and name[0] in "BIES")


def spans(tags: Sequence[str], *, prefixed: bool) -> list[tuple[int, int, str]]:
    """(first word, word behind the last, kind) of each span of a text's tags.

    A span ends where its kind does, before a B or S, and behind an E or S; it may begin with I or E (conlleval).
    """
    found: list[tuple[int, int, str]] = []
    going_on = False
    for place, tag in enumerate(tags):
        mark, kind = (tag[0], tag[2:]) if prefixed and tag != _OUTSIDE else ("S", tag)
        if tag == _OUTSIDE:
            going_on = False
            continue
        if going_on and mark in "IE" and found[-1][2] == kind:
            found[-1] = (found[-1][0], place + 1, kind)
        else:
            found.append((place, place + 1, kind))
        going_on = mark in "BI"
    return found
