"""The key-value cache of a language model: buffers of slots that the graph writes to where they lie."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bsexport_runtime.errors import BsexportRuntimeError

PAST = "past_key_values."
PRESENT = "present."
STEP = 64  # slots; to grow by it copies, for each token, a 64th of what attention reads for it

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True)
class Slots:
    """One buffer that a graph wants: keys or values of one layer, of shape [batch, heads, capacity, size].

    past, present: the names of its input and of its output.
    """

    past: str
    present: str
    heads: int
    size: int
    dtype: np.dtype[Any]


def has_cache(session: ort.InferenceSession) -> bool:
    """Whether the session's graph takes keys and values of earlier tokens, in whatever form."""
    return any(value.name.startswith(PAST) for value in session.get_inputs())


def slots_of(session: ort.InferenceSession) -> list[Slots]:
    """The buffers that the session's graph wants, by its inputs; none if it has no cache.

    Raises BsexportRuntimeError if such an input has no fixed heads and sizes, or is of a type that no cache has.
    """
    return [_slots(value) for value in session.get_inputs() if value.name.startswith(PAST)]


class Cache:
    """The keys and values of every layer, for `batch` rows of `capacity` tokens each, zeros at first.

    The token at position p of a row lies in slot p, and attention sees no slot beyond its own. So a row is rewound by
    giving its next token a smaller position, and a new text begins at position 0: nothing needs to be cleared.

    batch, capacity: how much of it there is. The capacity is rounded up to whole steps of STEP slots.
    Raises BsexportRuntimeError for a graph without a cache, sizes below 1, or if there is too little memory.
    """

    def __init__(self, session: ort.InferenceSession, batch: int, capacity: int) -> None:
        self._slots = slots_of(session)
        if not self._slots:
            raise BsexportRuntimeError(f"the graph has no cache: expected inputs such as {PAST}0.key")
        if batch < 1 or capacity < 1:
            raise BsexportRuntimeError(f"a cache of {batch} rows and {capacity} tokens: expected at least 1 of each")
        self.batch = batch
        self.capacity = _rounded(capacity)
        self._arrays = [self._zeros(slots, self.capacity) for slots in self._slots]
        self._bindings: weakref.WeakSet[ort.IOBinding] = weakref.WeakSet()

    @property
    def feeds(self) -> dict[str, npt.NDArray[Any]]:
        """The buffers by the names of the inputs, for a session.run without binding, which leaves them as they are."""
        return {slots.past: array for slots, array in zip(self._slots, self._arrays, strict=True)}

    def reserve(self, capacity: int) -> None:
        """Make room for so many tokens a row, keeping what is there, also where it is bound.

        Raises BsexportRuntimeError if there is too little memory; what was bound is then of no more use.
        """
        if capacity <= self.capacity:
            return
        grown = _rounded(capacity)
        for index, slots in enumerate(self._slots):
            new = self._zeros(slots, grown)
            new[:, :, : self.capacity] = self._arrays[index]
            self._arrays[index] = new  # one after the other, so that hardly more than one is there twice
            for binding in self._bindings:  # which keeps the old one until then
                _bind(binding, slots, new)
        self.capacity = grown

    def bind(self, binding: ort.IOBinding) -> None:
        """Have the graph read and write every buffer where it lies: its past and its present are the same memory."""
        for slots, array in zip(self._slots, self._arrays, strict=True):
            _bind(binding, slots, array)
        self._bindings.add(binding)

    def _zeros(self, slots: Slots, capacity: int) -> npt.NDArray[Any]:
        """Zeros rather than whatever memory holds: a slot that is not seen still counts 0 times its value."""
        try:
            return np.zeros((self.batch, slots.heads, capacity, slots.size), slots.dtype)
        except (MemoryError, ValueError) as error:
            row = sum(each.heads * each.size * each.dtype.itemsize for each in self._slots)
            size = f"{self.batch} x {capacity} tokens of {row:,} bytes"
            raise BsexportRuntimeError(f"too little memory for the cache of keys and values: {size}") from error


def _bind(binding: ort.IOBinding, slots: Slots, array: npt.NDArray[Any]) -> None:
    value = ort.OrtValue.ortvalue_from_numpy(array)  # not copied; keeps the array
    binding.bind_ortvalue_input(slots.past, value)
    binding.bind_ortvalue_output(slots.present, value)


def _slots(value: ort.NodeArg) -> Slots:
    shape, dtype = value.shape, _DTYPES.get(value.type)
    if dtype is None or len(shape) != 4 or not all(isinstance(shape[axis], int) for axis in (1, 3)):
        expected = "expected floats [batch, heads, capacity, size], heads and size fixed"
        raise BsexportRuntimeError(f"the graph's input {value.name} is {value.type} {shape}, {expected}")
    return Slots(value.name, PRESENT + value.name.removeprefix(PAST), shape[1], shape[3], np.dtype(dtype))


def _rounded(capacity: int) -> int:
    return -(-capacity // STEP) * STEP
