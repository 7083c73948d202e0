"""One tensor's way from weights to a blob: quantise, count, rank, choose the layout, encode, decode and compare.

It goes a slab at a time (`slabs`), in three rounds: count the levels, encode them, and hold what was written against
them. Levels are kept from round to round as far as they fit into `HELD_BYTES`, and else made again.
"""

from __future__ import annotations

import hashlib
import io
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bsexport import codebook, layout
from bsexport.codebook import Histogram
from bsexport.errors import VerifyError
from bsexport.prune import check_finite
from bsexport.quantize import dequantize, quantize
from bsexport.slabs import Each, Slab, slabs
from bsexport_runtime import codec, format
from bsexport_runtime.codebook import MAX_LEVEL
from bsexport_runtime.format import MAX_SYMBOLS, DType, Head, Index
from bsexport_runtime.int8 import LARGEST

Array = npt.NDArray[Any]
Levels = npt.NDArray[np.int32]

HELD_BYTES = 1 << 27  # of one tensor's levels
CODED_DTYPES = frozenset(dtype.name.lower() for dtype in DType if dtype.coded)


class Sink(Protocol):
    """Where a blob goes: its payload in parts, then its head, which tells of all of that."""

    def write(self, payload: bytes) -> None:
        """Append to the payload."""

    def discard(self) -> None:
        """Forget the payload."""

    def finish(self, head: bytes) -> Placed:
        """The payload becomes a blob."""

    def blob(self, placed: Placed) -> memoryview:
        """The bytes of the blob that was finished last."""


@dataclass(frozen=True)
class Placed:
    """Where a blob lies in weights.bsx, in bytes, and its sha256."""

    offset: int
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Tensor:
    """A tensor to code. read: the weights of a slab, one dimension, already pruned; called more than once.

    dtype: float16, bfloat16, float32 or float64, or for `code_raw` any.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Slab], Array]

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class CodedTensor:
    """A tensor as a blob. symbols: its histogram in the order of the symbols; None if it is stored as it is (RAW).

    zeros: how many weights are stored as 0.
    largest: the largest magnitude of a coded tensor's weights, 0 for RAW.
    wide: how many rows, and how many columns, of a coded matrix have a level beyond int8's; of other tensors 0.
    why: the reason for RAW, "" if it is coded.
    """

    placed: Placed
    head: Head
    symbols: Histogram | None
    zeros: int
    largest: float
    wide: tuple[int, int]
    why: str


def code_raw(tensor: Tensor, why: str, sink: Sink, each: Each) -> CodedTensor:
    """The tensor as it is, in a RAW blob. Raises SourceError for a NaN; infinities may be a mask's."""
    grid, dtype = format.geometry(tensor.shape), dtype_code(tensor.dtype)

    def take(slab: Slab) -> tuple[bytes, Index, int]:
        weights = tensor.read(slab)
        check_finite(tensor.name, weights, infinities=True)
        payload = weights.tobytes()
        index = codec.default().raw_index(payload, slab.shape, dtype, grid=grid)
        return payload, index, weights.size - int(np.count_nonzero(weights))

    zeros, entries = 0, []
    for payload, index, zero in each(take, slabs(tensor.shape)):
        sink.write(payload)
        entries.append(index)
        zeros += zero
    placed = sink.finish(codec.default().raw_head(_joined(entries), tensor.shape, dtype))
    return CodedTensor(placed, codec.parse(sink.blob(placed)), None, zeros, 0.0, (0, 0), why)


def code(tensor: Tensor, step: float, limits: layout.Allowed, sink: Sink, each: Each) -> CodedTensor:
    """The tensor quantised and coded in the cheapest way, checked by decoding; RAW, with a reason, if that is smaller.

    Raises SourceError for NaN or infinite weights, VerifyError if the blob does not decode to what was put in.
    """
    quantised = Quantised(tensor, step)
    counted = count(quantised, each)
    if isinstance(counted, str):
        return code_raw(tensor, counted, sink, each)
    symbols = counted.symbols
    coding = layout.choose_by(symbols, tensor.shape, partial(_count_streams, quantised, symbols, each), limits)
    head = _encode(quantised, symbols, coding, sink, each)
    if isinstance(head, str):
        sink.discard()
        return code_raw(tensor, head, sink, each)
    placed = sink.finish(head)
    _compare(quantised, sink.blob(placed), each)
    found = codec.parse(sink.blob(placed))
    return CodedTensor(placed, found, symbols, symbols.zeros, counted.largest, counted.wide, "")


@dataclass(frozen=True)
class Counted:
    """A tensor's levels, counted, see `CodedTensor`."""

    symbols: Histogram
    largest: float
    wide: tuple[int, int]


class Quantised:
    """The levels of a tensor, slab by slab. Those that were counted are kept, in the narrowest type, while there is
    room."""

    def __init__(self, tensor: Tensor, step: float) -> None:
        self.tensor, self.step = tensor, step
        self.slabs = slabs(tensor.shape)
        self.grid = format.geometry(tensor.shape)
        self._held: dict[Slab, npt.NDArray[np.signedinteger[Any]]] = {}
        self._room = HELD_BYTES
        self._lock = threading.Lock()

    def levels(self, slab: Slab) -> Levels:
        """int32 in the shape of the slab."""
        held = self._held.get(slab)
        if held is not None:
            return held.astype(np.int32)
        return quantize(self.tensor.read(slab), self.step).astype(np.int32).reshape(slab.shape)

    def count(self, slab: Slab) -> tuple[Histogram, float, tuple[Array, Array] | None] | None:
        """The histogram of a slab, the largest magnitude, and which of its rows and columns go beyond int8's levels;
        None if a level is beyond the format's. Raises SourceError for NaN or infinite weights."""
        weights = self.tensor.read(slab)
        largest = max(float(weights.max()), -float(weights.min()))
        if not math.isfinite(largest):
            check_finite(self.tensor.name, weights)
        if largest / self.step > MAX_LEVEL + 0.5:  # which rounds to an even number, and so down
            return None
        levels = quantize(weights, self.step).astype(np.int32).reshape(slab.shape)
        histogram = codebook.count(levels)
        self._hold(slab, levels, max(-int(histogram.levels[0]), int(histogram.levels[-1])))
        return histogram, largest, _wide(levels, histogram)

    def _hold(self, slab: Slab, levels: Levels, largest: int) -> None:
        narrow = levels.astype(np.min_scalar_type(-largest - 1))
        with self._lock:
            if narrow.nbytes <= self._room:
                self._room -= narrow.nbytes
                self._held[slab] = narrow


def count(quantised: Quantised, each: Each) -> Counted | str:
    """The levels of a tensor, counted, or why it cannot be coded. Raises SourceError for NaN or infinite weights."""
    tensor, step = quantised.tensor, quantised.step
    histogram, waiting, largest = codebook.EMPTY, [], 0.0
    wide = np.zeros(tensor.shape[0], bool), np.zeros(math.prod(tensor.shape[1:]), bool)
    for slab, counted in zip(quantised.slabs, each(quantised.count, quantised.slabs), strict=True):
        if counted is None:
            return f"a level is beyond 2^24 at step {step:g}"
        waiting.append(counted[0])
        if slab.end == quantised.slabs[-1].end or sum(part.levels.size for part in waiting) > MAX_SYMBOLS:
            histogram, waiting = codebook.merge([histogram, *waiting]), []
        if histogram.levels.size > MAX_SYMBOLS:
            return f"more than {MAX_SYMBOLS} distinct levels at step {step:g}"
        largest = max(largest, counted[1])
        if counted[2] is not None:
            for every, some, start in zip(wide, counted[2], (slab.row, slab.col), strict=True):
                every[start : start + some.size] |= some
    with np.errstate(over="ignore"):
        values = dequantize(histogram.levels, step).astype(tensor.dtype)
    if not np.isfinite(values).all():
        return f"at step {step:g} a weight would round beyond what {tensor.dtype.name} holds"
    rows, cols = (int(np.count_nonzero(each)) if len(tensor.shape) == 2 else 0 for each in wide)
    return Counted(codebook.rank(histogram), largest, (rows, cols))


def _wide(levels: Levels, histogram: Histogram) -> tuple[Array, Array] | None:
    """Which rows, and which columns, have a level beyond +-LARGEST; None if none has."""
    if np.abs(histogram.levels).max() <= LARGEST:
        return None
    rows, cols = (np.maximum(levels.max(axis), -levels.min(axis)) > LARGEST for axis in (1, 0))
    return rows, cols


def _count_streams(quantised: Quantised, symbols: Histogram, each: Each) -> layout.Streams:
    def counted(slab: Slab) -> layout.Streams:
        return layout.count_streams(quantised.levels(slab), symbols, quantised.grid)

    return layout.merge_streams(each(counted, quantised.slabs))


def _encode(quantised: Quantised, symbols: Histogram, coding: layout.Coding, sink: Sink, each: Each) -> bytes | str:
    """Write the payload and return the blob's head, or why the tensor had better be stored as it is."""
    tensor, written = quantised.tensor, 0
    how: dict[str, Any] = {
        "codebook": symbols.levels,
        "layout": coding.layout,
        "level_code": coding.level_code,
        "run_code": coding.run_code,
        "pair_classes": coding.pair_classes,
    }

    def encoded(slab: Slab) -> tuple[bytes, Index]:
        return codec.default().encode_blocks(quantised.levels(slab), grid=quantised.grid, **how)

    entries = []
    for payload, index in each(encoded, quantised.slabs):
        sink.write(payload)
        written += len(payload)
        entries.append(index)
    dtype = dtype_code(tensor.dtype)
    head = codec.default().head(_joined(entries), shape=tensor.shape, dtype=dtype, step=quantised.step, **how)
    if len(head) + written >= tensor.nbytes:
        return f"coded it would take {len(head) + written} bytes instead of {tensor.nbytes}"
    return head


def _compare(quantised: Quantised, blob: memoryview, each: Each) -> None:
    """Decode the blob, a slab at a time, and hold it against the dequantised levels bit by bit."""
    parts = codec.default().open(blob)

    def differs(slab: Slab) -> bool:
        decoded = parts.part(slab.begin, slab.end)
        values = dequantize(quantised.levels(slab).reshape(-1), quantised.step)
        expected = values.astype(quantised.tensor.dtype, copy=False).astype(decoded.dtype, copy=False)
        return not np.array_equal(decoded, expected)

    if any(each(differs, quantised.slabs)):
        raise VerifyError(
            f"tensor {quantised.tensor.name}: its blob does not decode to the weights that were coded; "
            "nothing was written"
        )


def _joined(entries: Iterable[Index]) -> Index:
    counts, crcs = zip(*entries, strict=True)
    return Index(np.concatenate(counts), np.concatenate(crcs))


def dtype_code(dtype: np.dtype[Any]) -> DType:
    """The format's number of a numpy or ml_dtypes type (docs/format.md, section 2)."""
    return DType[dtype.name.replace("_", "").upper()]


class Memory:
    """A sink that keeps the blob of one tensor in memory."""

    def __init__(self) -> None:
        self._payload = io.BytesIO()
        self._blob = b""

    def write(self, payload: bytes) -> None:
        """See Sink."""
        self._payload.write(payload)

    def discard(self) -> None:
        """See Sink."""
        self._payload = io.BytesIO()

    def finish(self, head: bytes) -> Placed:
        """See Sink."""
        self._blob = head + self._payload.getvalue()
        self.discard()
        return Placed(0, len(self._blob), hashlib.sha256(self._blob).hexdigest())

    def blob(self, placed: Placed) -> memoryview:
        """See Sink."""
        return memoryview(self._blob)
