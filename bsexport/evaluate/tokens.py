"""Accuracy and perplexity of the tokens of a text: the next one, or those behind masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bsexport.evaluate.measure import Array, Batch, Measure
from bsexport.tasks.task import IGNORED


@dataclass(frozen=True)
class Tokens(Measure):
    """Statistics of a window of text: tokens told rightly, tokens asked for, their negative log likelihood in nats.

    labels: for each place that has logits, padding aside, the token to be told there, or IGNORED.
    The interval is over windows, since the tokens of one window depend on each other.
    """

    name: ClassVar = "tokens"
    primary: ClassVar = "accuracy"
    outputs: ClassVar = ("logits",)
    rank: ClassVar = 3

    def statistics(self, outputs: dict[str, Array], batch: Batch) -> Array:
        rows = zip(batch.unpadded(outputs["logits"]), map(np.asarray, batch.known["labels"]), strict=True)
        # One window at a time: what is computed of its logits is as large as they are.
        return np.array([_of_window(logits, labels) for logits, labels in rows], np.float64)

    def figures(self, statistics: Array) -> dict[str, float]:
        right, asked, likelihood = statistics.sum(0)
        with np.errstate(over="ignore"):
            return {"accuracy": float(right / asked), "perplexity": float(np.exp(likelihood / asked))}


def _of_window(logits: Array, labels: Array) -> tuple[float, float, float]:
    """Of logits [places, tokens] and labels [places]."""
    asked = labels != IGNORED
    logits, labels = logits[asked], labels[asked]
    peak = logits.max(-1)
    total = np.exp(logits - peak[:, None]).sum(-1, dtype=np.float64)
    likelihood = np.log(total) + peak - logits[np.arange(len(labels)), labels]
    return (logits.argmax(-1) == labels).sum(), len(labels), likelihood.sum()
