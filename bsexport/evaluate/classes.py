"""Accuracy and macro-F1 of a class for each example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bsexport.evaluate.measure import Array, Batch, Measure


@dataclass(frozen=True)
class Classes(Measure):
    """Statistics of an example: whether it is right, the class it is given, the class it has.

    count: classes of the head. macro_f1: the mean of F1 over the classes that the examples have.
    """

    count: int

    name: ClassVar = "classes"
    primary: ClassVar = "accuracy"
    shares: ClassVar = {"accuracy": 0}
    outputs: ClassVar = ("logits",)
    rank: ClassVar = 2

    def statistics(self, outputs: dict[str, Array], batch: Batch) -> Array:
        labels = np.asarray(batch.known["labels"])
        given = outputs["logits"].argmax(-1)
        return np.stack([given == labels, given, labels], -1).astype(np.float64)

    def figures(self, statistics: Array) -> dict[str, float]:
        right, given, labels = statistics.T
        hits, predicted, there = (
            np.bincount(of.astype(np.int64), minlength=self.count) for of in (labels[right == 1], given, labels)
        )
        f1 = 2 * hits[there > 0] / (predicted + there)[there > 0]
        return {"accuracy": float(right.mean()), "macro_f1": float(f1.mean())}
