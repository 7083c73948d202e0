"""Exact match and F1 of the answers to questions about a passage, as SQuAD has them."""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bsexport.evaluate.measure import Array, Batch, Measure

LONGEST = 30  # tokens of an answer


@dataclass(frozen=True)
class Answers(Measure):
    """Statistics of a question: exact match, F1; the best over its right answers (Rajpurkar et al. 2016).

    nullable: whether some questions have no answer, as in SQuAD 2: then "" is told where the first token's logits are
    above those of any span, in every window.
    known: "owner", the example in the batch that each window of a passage belongs to; of each example "offsets", for
    each of its windows int64 [tokens, 2], a token's characters of the passage, -1 outside of it; "passages", a text;
    "answers", a list of texts, [""] if there is none.
    """

    nullable: bool

    name: ClassVar = "answers"
    primary: ClassVar = "f1"
    shares: ClassVar = {"exact_match": 0}
    outputs: ClassVar = ("start_logits", "end_logits")
    rank: ClassVar = 2

    def statistics(self, outputs: dict[str, Array], batch: Batch) -> Array:
        told = self._told(outputs["start_logits"], outputs["end_logits"], batch)
        return np.array(
            [
                [max(score(text, answer) for answer in right) for score in (exact_match, f1)]
                for text, right in zip(told, batch.known["answers"], strict=True)
            ],
            np.float64,
        )

    def _told(self, start: Array, end: Array, batch: Batch) -> list[str]:
        """The answer to each question."""
        texts = [""] * len(batch.rows)
        best, nothing = np.full(len(texts), -np.inf), np.full(len(texts), np.inf)
        places = [offsets for windows in batch.known["offsets"] for offsets in windows]
        windows = zip(batch.known["owner"], places, batch.unpadded(start), batch.unpadded(end), strict=True)
        for owner, offsets, starts, ends in windows:
            first, last, score = best_span(starts, ends, offsets[:, 0] >= 0)
            if score > best[owner]:
                best[owner] = score
                texts[owner] = batch.known["passages"][owner][offsets[first, 0] : offsets[last, 1]]
            nothing[owner] = min(nothing[owner], starts[0] + ends[0])
        return ["" if self.nullable and nothing[owner] > best[owner] else text for owner, text in enumerate(texts)]

    def figures(self, statistics: Array) -> dict[str, float]:
        exact, overlap = statistics.mean(0)
        return {"f1": float(overlap), "exact_match": float(exact)}


def best_span(start: Array, end: Array, inside: npt.NDArray[np.bool_]) -> tuple[int, int, float]:
    """First and last token of the likeliest span, all of it inside, of at most LONGEST tokens; and the sum of its
    logits: of start and end logits [tokens]. Minus infinity if nothing is inside."""
    scores = np.where(inside, start, -np.inf)[:, None] + np.where(inside, end, -np.inf)[None, :]
    scores[np.triu(np.tri(len(scores), k=LONGEST - 1)) == 0] = -np.inf
    first, last = np.unravel_index(np.argmax(scores), scores.shape)
    return int(first), int(last), float(scores[first, last])


def normalise(text: str) -> str:
    """Without case, punctuation, articles and needless space, as in SQuAD's own script."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def exact_match(told: str, answer: str) -> float:
    """1 if both are the same when normalised."""
    return float(normalise(told) == normalise(answer))


def f1(told: str, answer: str) -> float:
    """Of the words that both have in common, when normalised; of an empty one, exact match."""
    ours, theirs = normalise(told).split(), normalise(answer).split()
    common = sum((Counter(ours) & Counter(theirs)).values())
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * common / (len(ours) + len(theirs))
