"""Run a language model token by token: everything is bound once, and what a step changes is written in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bsexport_runtime.cache import PAST, Cache, slots_of
from bsexport_runtime.errors import BsexportRuntimeError

IDS, POSITIONS, KEPT = "input_ids", "position_ids", "logits_to_keep"
LOGITS = "logits"

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


def vocabulary_of(session: ort.InferenceSession) -> int:
    """The number of tokens that a language model's session tells apart.

    Raises BsexportRuntimeError if it is the session of no such model.
    """
    inputs = [value.name for value in session.get_inputs()]
    shapes = {value.name: value.shape for value in session.get_outputs() if value.type == "tensor(float)"}
    size = shapes.get(LOGITS, [None])[-1]
    if not {IDS, POSITIONS, KEPT} <= set(inputs) or not slots_of(session) or not isinstance(size, int):
        shown = ", ".join(inputs[:4]) + (", ..." if len(inputs) > 4 else "")
        raise BsexportRuntimeError(
            f"the session is of no language model with a cache: it takes {shown}, expected {IDS}, {POSITIONS}, {KEPT} "
            f"and {PAST}*; pack a causal language model, with this version of bsexport"
        )
    return size


def padded(rows: Sequence[Tokens]) -> Tokens:
    """Rows of any lengths in one array, int64 [batch, longest], with zeros on the right."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = row
    return ids


class Decoder:
    """A language model in the middle of a batch of texts: it is given their tokens, and tells what may follow.

    session: of a language model. batch: how many texts. token: the run that a step makes.
    given: what else the graph takes, the same for every token, by the names of its inputs: what an encoder gave.
    """

    def __init__(
        self, session: ort.InferenceSession, batch: int, given: Mapping[str, ort.OrtValue] | None = None
    ) -> None:
        self._session = session
        self._given = given or {}
        self._cache = Cache(session, batch, 1)
        self.token = Call(session, self._cache, 1, self._given)
        self._end = 0  # the slot that the next token of the longest text is written to

    def prefill(self, prompts: Sequence[Tokens], chunk: int) -> Logits:
        """The logits [batch, vocabulary] that follow each prompt, which the cache then holds.

        Shorter prompts are padded on the right: what padding writes to the cache is overwritten by the tokens that
        follow before attention can see it.
        """
        lengths = np.array([len(prompt) for prompt in prompts])
        ids = padded(prompts)
        longest = ids.shape[1]
        self._cache.reserve(longest)
        found = np.empty_like(self.token.logits[:, 0])
        for start in range(0, longest, chunk):
            part = ids[:, start : start + chunk]
            call = Call(self._session, self._cache, part.shape[1], self._given)
            call.ids[:] = part
            call.positions[:] = np.arange(start, start + part.shape[1])
            last = lengths - 1 - start
            ends = (last >= 0) & (last < part.shape[1])
            call.kept[:, 0] = np.where(ends, last, 0)
            call.run()
            found[ends] = call.logits[ends, 0]
        self.token.positions[:, 0] = lengths
        self._end = longest
        return found

    def step(self, tokens: Tokens) -> Logits:
        """The logits [batch, vocabulary] after one more token of each text. They are overwritten by the next step."""
        self._cache.reserve(self._end + 1)
        self.token.ids[:, 0] = tokens
        self.token.run()
        self.token.positions += 1
        self._end += 1
        return self.token.logits[:, 0]


class Call:
    """A run of `width` tokens of each row, bound: what is written into its arrays counts when it runs.

    ids, positions: int64 [batch, width]. kept: int64 [batch, 1], the place among them whose logits come out.
    logits: float32 [batch, 1, vocabulary], what the last run gave. binding: all of them, and the cache.
    """

    def __init__(
        self, session: ort.InferenceSession, cache: Cache, width: int, given: Mapping[str, ort.OrtValue]
    ) -> None:
        self._session = session
        self.ids, self.positions = (np.zeros((cache.batch, width), np.int64) for _ in range(2))
        self.kept = np.zeros((cache.batch, 1), np.int64)
        self.logits = np.zeros((cache.batch, 1, vocabulary_of(session)), np.float32)
        self.binding = session.io_binding()
        for name, array in ((IDS, self.ids), (POSITIONS, self.positions), (KEPT, self.kept)):
            self.binding.bind_ortvalue_input(name, _value(array))
        for name, value in given.items():
            self.binding.bind_ortvalue_input(name, value)
        self.binding.bind_ortvalue_output(LOGITS, _value(self.logits))
        cache.bind(self.binding)

    def run(self) -> None:
        self._session.run_with_iobinding(self.binding)


def _value(array: npt.NDArray[Any]) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(array)  # where the array lies: not copied
