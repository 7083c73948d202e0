"""Accuracy and perplexity of the tokens of a text: the next one, or those behind masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bsexport.evaluate.measure import Array, Batch, Measure
from bsexport.tasks.task import IGNORED


@dataclass(frozen=True)
class Tokens(Measure):
    """Statistics of a block of text: tokens told rightly, tokens asked for, and their negative log likelihood in nats.

    shift: 1 if a place's logits are about the token after it, else 0. Padding is never asked for.
    The interval is over blocks, since the tokens of one block depend on each other.
    """

    shift: int

    name: ClassVar = "tokens"
    primary: ClassVar = "accuracy"
    outputs: ClassVar = ("logits",)
    rank: ClassVar = 3

    def statistics(self, outputs: dict[str, Array], batch: Batch) -> Array:
        labels = np.asarray(batch.known["labels"])
        logits = outputs["logits"][:, : labels.shape[1] - self.shift]
        labels = labels[:, self.shift :]
        asked = labels != IGNORED
        chosen = np.take_along_axis(logits, np.where(asked, labels, 0)[..., None], -1)[..., 0].astype(np.float64)
        peak = logits.max(-1)
        total = np.exp(logits - peak[..., None]).sum(-1, dtype=np.float64)
        likelihood = np.log(total) + peak - chosen
        right = (logits.argmax(-1) == labels) & asked
        return np.stack([right.sum(1), asked.sum(1), (likelihood * asked).sum(1)], -1).astype(np.float64)

    def figures(self, statistics: Array) -> dict[str, float]:
        right, asked, likelihood = statistics.sum(0)
        with np.errstate(over="ignore"):
            return {"accuracy": float(right / asked), "perplexity": float(np.exp(likelihood / asked))}
