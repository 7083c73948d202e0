"""Choose the next token from logits, with the processors of transformers' generate, in their order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from bsexport_runtime.decoder import Logits, Tokens
from bsexport_runtime.errors import BsexportRuntimeError

_COLDEST, _HOTTEST = 1e-30, 1e30  # temperatures by which float32 logits can be divided


class Sampler:
    """Chooses a token for every row of logits.

    temperature: 0 takes the likeliest token, the first of equals. Above 0 a token is drawn: logits are divided by it.
    top_k: draw from the k likeliest only, and those equal to the last of them. None or 0: from all.
    top_p: of what top_k leaves, draw from the likeliest that together have this probability. None or 1: from all.
    repetition_penalty: divides the positive logits, and multiplies the negative, of tokens that are in the row already,
    prompt and new ones. 1: none.
    seed: of the draws, or one for each row; None: another each time. A row's draws depend on its seed and on how many
    it has made, on nothing else: rows of equal seeds and logits get equal tokens, wherever in a batch they stand.

    Raises BsexportRuntimeError for values that make no sense.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | Sequence[int] | None = None,
    ) -> None:
        self.temperature = _number("temperature", temperature)
        self.top_k = top_k or 0
        self.top_p = 1.0 if top_p is None else _number("top_p", top_p)
        self._penalty = np.float32(_number("repetition_penalty", repetition_penalty))
        self.seed = seed
        self._generators: list[np.random.Generator] = []
        self._seen: npt.NDArray[np.bool_] | None = None
        if self.temperature and not _COLDEST <= self.temperature <= _HOTTEST:
            expected = f"0 (the likeliest token), or {_COLDEST} to {_HOTTEST}"
            raise BsexportRuntimeError(f"temperature is {temperature}, expected {expected}")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, (int, np.integer)) or self.top_k < 0:
            raise BsexportRuntimeError(f"top_k is {top_k!r}, expected a number of tokens, or None for all of them")
        if not 0 < self.top_p <= 1:
            raise BsexportRuntimeError(f"top_p is {top_p}, expected a probability above 0, up to 1")
        if self._penalty <= 0:
            raise BsexportRuntimeError(f"repetition_penalty is {repetition_penalty}, expected above 0; 1 is none")
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise BsexportRuntimeError("top_k and top_p are for drawing tokens: give a temperature above 0, such as 1")

    def begin(self, prompts: Sequence[Tokens], vocabulary: int) -> None:
        """Start anew, with a row for each prompt. Raises BsexportRuntimeError if there is not one seed for each."""
        if self.temperature:
            self._generators = [np.random.default_rng(seed) for seed in self._seeds(len(prompts))]
        if self._penalty != 1:
            self._seen = np.zeros((len(prompts), vocabulary), np.bool_)
            for row, prompt in enumerate(prompts):
                self._seen[row, prompt] = True

    def choose(self, logits: Logits) -> Tokens:
        """A token for each row of logits [batch, vocabulary], which it may write to.

        Raises BsexportRuntimeError if a row has NaN or nothing but infinities.
        """
        best: Tokens = logits.argmax(-1)  # of a row with NaN, its first
        for row, token in enumerate(best.tolist()):
            if not math.isfinite(logits[row, token]):
                raise BsexportRuntimeError(
                    f"row {row}: the logit of token {token} is {logits[row, token]}, expected a number; the weights "
                    "may be damaged (bsexport verify), or the model not suit float32"
                )
        if self._seen is not None:
            penalised = np.where(logits < 0, logits * self._penalty, logits / self._penalty)
            np.copyto(logits, penalised, where=self._seen)
            best = logits.argmax(-1)
        if self.temperature:
            best = np.array([self._draw(*each) for each in zip(logits, self._generators, strict=True)], np.int64)
        if self._seen is not None:
            self._seen[np.arange(len(best)), best] = True
        return best

    def probabilities(self, logits: Logits) -> tuple[Tokens, npt.NDArray[np.float64]]:
        """The tokens that may be drawn from one row's logits [vocabulary], in order, and the probability of each."""
        scores = logits / np.float32(self.temperature)
        tokens = np.arange(scores.size)
        if 0 < self.top_k < scores.size:
            tokens = np.flatnonzero(scores >= np.partition(scores, -self.top_k)[-self.top_k])
            scores = scores[tokens]
        weights = np.exp(scores - scores.max()).astype(np.float64)
        weights /= weights.sum()
        if self.top_p < 1:
            kept = _nucleus(weights, self.top_p)
            tokens, weights = tokens[kept], weights[kept] / weights[kept].sum()
        return tokens, weights

    def _draw(self, logits: Logits, generator: np.random.Generator) -> int:
        tokens, weights = self.probabilities(logits)
        ends = np.cumsum(weights)
        place = np.searchsorted(ends, generator.random() * ends[-1], "right")
        return int(tokens[min(place, tokens.size - 1)])

    def _seeds(self, rows: int) -> list[int | None]:
        seeds: list[int | None] = list(self.seed) if isinstance(self.seed, Iterable) else [self.seed] * rows
        if len(seeds) != rows:
            raise BsexportRuntimeError(f"{len(seeds)} seeds for {rows} prompts: give one for each, or one for all")
        for seed in seeds:
            if seed is not None and (not isinstance(seed, (int, np.integer)) or seed < 0):
                raise BsexportRuntimeError(f"seed is {seed!r}, expected a whole number, 0 or above")
        return seeds


def _nucleus(weights: npt.NDArray[np.float64], top_p: float) -> Tokens:
    """The places of the likeliest that have this probability together, in order: the last that fits is among them."""
    # All that are below this have less than 1 - top_p together, whatever their order: they need not be sorted.
    few = np.flatnonzero(weights >= (1 - top_p) / weights.size)
    order = few[np.argsort(weights[few], kind="stable")]
    below = np.cumsum(weights[order]) + (1 - weights[few].sum())
    kept = below > 1 - top_p
    kept[-1] = True  # at least one, whatever the rounding
    return np.sort(order[kept])


def _number(name: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BsexportRuntimeError(f"{name} is {value!r}, expected a number")
    return number
