"""How near a model stays to the dense one: for data without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bsexport.evaluate.measure import Array, Batch, Measure


@dataclass(frozen=True)
class Cosine(Measure):
    """Statistic of an example: the cosine of its embedding and the dense model's; that is the mean over the tokens
    that the mask counts, of the first output, or over an image's places."""

    name: ClassVar = "cosine"
    primary: ClassVar = "cosine"
    dense: ClassVar = True

    def wanted(self, there: Sequence[str]) -> list[str]:
        return list(there)[:1]

    def statistics(self, outputs: dict[str, Array], batch: Batch) -> Array:
        ours, theirs = embeddings(outputs, batch), batch.known["embeddings"]
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        return np.asarray((ours * theirs).sum(1, keepdims=True) / np.maximum(norms, 1e-30)[:, None])

    def figures(self, statistics: Array) -> dict[str, float]:
        return {"cosine": float(statistics.mean())}

    def reference(self, outputs: dict[str, Array], batch: Batch) -> dict[str, Array]:
        return {"embeddings": embeddings(outputs, batch)}


@dataclass(frozen=True)
class Agreement(Measure):
    """Statistics of an example: places where the likeliest class is the dense model's; places; the sum of the
    Kullback-Leibler divergences from the dense model's distribution, in nats. Padding is not counted."""

    name: ClassVar = "agreement"
    primary: ClassVar = "agreement"
    dense: ClassVar = True

    def wanted(self, there: Sequence[str]) -> list[str]:
        return [name for name in there if "logits" in name] or list(there)

    def statistics(self, outputs: dict[str, Array], batch: Batch) -> Array:
        rows = np.zeros((len(batch.rows), 3))
        for name, logits in outputs.items():
            ours, theirs = _log_softmax(logits), batch.known[name]
            counted = _counted(logits.shape[:-1], batch)
            divergence = (np.exp(theirs) * (theirs - ours)).sum(-1)
            found = (ours.argmax(-1) == theirs.argmax(-1)) & counted, counted, divergence * counted
            rows += np.stack([each.reshape(len(rows), -1).sum(1) for each in found], -1)
        return rows

    def figures(self, statistics: Array) -> dict[str, float]:
        same, places, divergence = statistics.sum(0)
        return {"agreement": float(same / places), "kl": float(divergence / places)}

    def reference(self, outputs: dict[str, Array], batch: Batch) -> dict[str, Array]:
        return {name: _log_softmax(logits) for name, logits in outputs.items()}


def embeddings(outputs: dict[str, Array], batch: Batch) -> Array:
    """float64 [examples, dimensions], of the first output."""
    return mean_states(next(iter(outputs.values())), batch.mask)


def mean_states(states: Array, mask: Array | None) -> Array:
    """The mean of states over places, float64 [batch, dimensions]: [batch, tokens, dimensions] over those that the mask
    [batch, tokens] counts, or images' [batch, dimensions, height, width]; [batch, dimensions] as they are."""
    states = states.astype(np.float64)
    if states.ndim == 4:
        return np.asarray(states.mean((2, 3)))
    if mask is None or states.ndim != 3 or mask.shape != states.shape[:2]:
        return np.asarray(states.reshape(len(states), -1, states.shape[-1]).mean(1))
    return np.asarray((states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True))


def _counted(shape: tuple[int, ...], batch: Batch) -> Array:
    """Which places are no padding: bool of this shape, [examples, ...]."""
    mask = batch.mask
    counted: Array = np.ones(shape, bool) if mask is None or mask.shape != shape else mask
    return counted


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
