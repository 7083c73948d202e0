"""Encode and decode one blob, or decode many: the public face of the codec over its two backends.

The native backend (the C library libbsx) is taken if it is there; else numpy decodes, some fifteen times slower, with
a RuntimeWarning that says why. BSEXPORT_REQUIRE_NATIVE=1 makes that an error, BSEXPORT_BACKEND=numpy asks for numpy.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from bsexport_runtime import fallback, format
from bsexport_runtime.codebook import MAX_CLASS, MAX_LEVEL, Codebook
from bsexport_runtime.codes import MAX_CODE
from bsexport_runtime.errors import BackendError, BlobError, Status
from bsexport_runtime.format import DType, Head, Index, Layout

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class Opened(Protocol):
    """A blob whose head is checked, and of which blocks are decoded, by any number of threads."""

    head: Head

    def decode_blocks(self, first: int, count: int, out: WriteableBuffer, *, out_type: DType | None) -> None: ...


class Backend(Protocol):
    """What decodes and encodes; both backends give the same bytes and the same Status for every input."""

    name: str

    def crc32c(self, data: ReadableBuffer) -> int: ...

    def parse(self, blob: ReadableBuffer) -> Head: ...

    def decode_into(
        self, blobs: Sequence[ReadableBuffer], outs: Sequence[WriteableBuffer], *, out_type: DType | None, threads: int
    ) -> None: ...

    def Opened(self, blob: ReadableBuffer) -> Opened: ...  # noqa: N802  (the backends' class)

    def count(self, values: NDArray[Any], *, mask: int, least: int, shift: int, bins: int) -> NDArray[np.int64]: ...

    def encode_payload(
        self,
        levels: NDArray[np.int32],
        codebook: NDArray[np.int32],
        *,
        layout: Layout,
        level_code: int,
        run_code: int,
        pair_classes: NDArray[np.uint8] | None,
        block_rows: int,
        block_cols: int,
        threads: int,
    ) -> tuple[bytes, NDArray[np.uint32]]: ...


class Parts:
    """Decodes parts of a blob, by any number of threads. head: what it declares."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.head = opened.head

    def part(self, begin: int, end: int, *, out_type: DType | None = None) -> NDArray[Any]:
        """See `Codec.decode_part`."""
        head = self.head
        if not 0 <= begin <= end <= head.weights:
            raise BlobError(
                Status.BAD_ARGUMENT, f"blob: weights {begin} to {end} asked for, but there are {head.weights}"
            )
        dtype = format.output_type(head, out_type)
        if begin == end:
            return _widened(np.empty(0, dtype=dtype.storage), dtype)
        first, last = head.block_of(begin), head.block_of(end - 1)
        origin = head.first_weight(first)
        out = np.empty(head.first_weight(last + 1) - origin, dtype=dtype.storage)
        self._opened.decode_blocks(first, last + 1 - first, out, out_type=out_type)
        return _widened(out, dtype)[begin - origin : end - origin]


class Codec:
    """The codec on one backend; the functions of this module are those of `Codec(the chosen backend)`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def parse(self, blob: ReadableBuffer) -> Head:
        """Check a blob's head (docs/format.md, section 9) and return what it declares; raises BlobError."""
        return self.backend.parse(blob)

    def decode(self, blob: ReadableBuffer, *, out_type: DType | None = None, threads: int = 1) -> NDArray[Any]:
        """A blob's weights, in head.shape and the type that it declares, or in `out_type` (see `decode_into`).

        numpy has no bfloat16 and no float8: bfloat16 comes widened to float32, float8 as its bits in uint8.
        Raises BlobError.
        """
        head = self.parse(blob)
        dtype = format.output_type(head, out_type)
        out = np.empty(head.weights, dtype=dtype.storage)
        self.decode_into([blob], [out], out_type=out_type, threads=threads)
        return _widened(out, dtype).reshape(head.shape)

    def decode_levels(self, blob: ReadableBuffer, *, threads: int = 1) -> NDArray[np.int32]:
        """The levels of an EG, RL or BM blob, int32 in head.shape; weight = float32(level) * float32(step).

        Raises BlobError, BAD_ARGUMENT for a RAW blob.
        """
        head = self.parse(blob)
        if head.layout is Layout.RAW:
            raise BlobError(Status.BAD_ARGUMENT, "blob: levels asked for, but a RAW blob has none")
        out = np.empty(head.weights, dtype=np.dtype("<i4"))
        self.decode_into([blob], [out], out_type=DType.INT32, threads=threads)
        return out.reshape(head.shape)

    def decode_rows(
        self, blob: ReadableBuffer, start: int, stop: int, *, out_type: DType | None = None
    ) -> NDArray[Any]:
        """Rows start to stop - 1 of dimension 0, as `decode` gives them; only the blocks that hold them are decoded.

        Raises BlobError, BAD_ARGUMENT unless 0 <= start <= stop <= head.shape[0].
        """
        head = self.parse(blob)
        if not 0 <= start <= stop <= head.rows:
            raise BlobError(Status.BAD_ARGUMENT, f"blob: rows {start} to {stop} asked for, but there are {head.rows}")
        part = self.decode_part(blob, start * head.cols, stop * head.cols, out_type=out_type)
        return part.reshape(stop - start, *head.shape[1:])

    def decode_part(self, blob: ReadableBuffer, begin: int, end: int, *, out_type: DType | None = None) -> NDArray[Any]:
        """Weights begin to end - 1 of the row-major tensor, in one dimension and the type that `decode` gives them in;
        only the blocks that hold them are decoded.

        Raises BlobError, BAD_ARGUMENT unless 0 <= begin <= end <= head.weights.
        """
        return self.open(blob).part(begin, end, out_type=out_type)

    def open(self, blob: ReadableBuffer) -> Parts:
        """A blob of which many parts are decoded. Raises BlobError."""
        return Parts(self.backend.Opened(blob))

    def count(
        self, values: NDArray[Any], *, bins: int, mask: int = 0xFFFFFFFF, least: int = 0, shift: int = 0
    ) -> NDArray[np.int64]:
        """How often each of the bins ((value & mask) - least) >> shift occurs, int64 [bins].

        values: of 32 bits each, such as levels, or weights by their bits. Raises BlobError, BAD_ARGUMENT if one is in
        none of the bins.
        """
        return self.backend.count(values, mask=mask, least=least, shift=shift, bins=bins)

    def decode_into(
        self,
        blobs: Sequence[ReadableBuffer],
        outs: Sequence[WriteableBuffer],
        *,
        out_type: DType | None = None,
        threads: int = 1,
    ) -> None:
        """Decode many blobs at once, each into a writable buffer of exactly its weights in its own type, head.dtype.

        With an out_type, EG, RL and BM blobs are decoded to that instead: FLOAT32, FLOAT16, BFLOAT16 (its bits) or
        FLOAT64 weights, or INT8, INT16 or INT32 levels. Raises BlobError, BAD_ARGUMENT for a type that a blob cannot be
        had in; the buffers' contents are then undefined.
        """
        if len(blobs) != len(outs):
            raise BlobError(Status.BAD_ARGUMENT, f"{len(blobs)} blobs, but {len(outs)} buffers")
        self.backend.decode_into(blobs, outs, out_type=out_type, threads=threads)

    def encode(
        self,
        levels: NDArray[np.int32],
        *,
        dtype: DType,
        step: float,
        codebook: NDArray[np.int32],
        layout: Layout,
        level_code: int,
        run_code: int = 0,
        pair_classes: NDArray[np.uint8] | None = None,
        threads: int = 1,
    ) -> bytes:
        """The EG, RL or BM blob of a tensor of levels (docs/format.md).

        levels: int32, 1 to 8 dimensions, none empty; codebook: int32 [symbols], symbol 0 first, every level once; step
        is rounded to float32; level_code and run_code are code bytes (section 3), run_code is for RL only.
        pair_classes: the classes of symbols 1, 2 ... (section 4), uint8 [symbols - 1], to code levels in pairs, in RL
        and BM. Raises BlobError, BAD_ARGUMENT if something does not fit.
        """
        _check_shape(levels.shape)
        _check_tensor(dtype, step, codebook)
        payload, index = self.encode_blocks(
            levels.reshape(levels.shape[0], -1),
            grid=format.geometry(levels.shape),
            codebook=codebook,
            layout=layout,
            level_code=level_code,
            run_code=run_code,
            pair_classes=pair_classes,
            threads=threads,
        )
        head = self.head(
            index,
            shape=levels.shape,
            dtype=dtype,
            step=step,
            codebook=codebook,
            layout=layout,
            level_code=level_code,
            run_code=run_code,
            pair_classes=pair_classes,
        )
        return head + payload

    def encode_blocks(
        self,
        levels: NDArray[np.int32],
        *,
        grid: tuple[int, int],
        codebook: NDArray[np.int32],
        layout: Layout,
        level_code: int,
        run_code: int = 0,
        pair_classes: NDArray[np.uint8] | None = None,
        threads: int = 1,
    ) -> tuple[bytes, Index]:
        """The payload of consecutive whole blocks of a tensor, and their entries of its index; `head` checks the rest.

        levels: int32 [rows, cols], whole rows of the tensor or a piece of one row that starts where a block does;
        grid: block_rows and block_cols of the tensor, `format.geometry(shape)`; the rest as in `encode`.
        """
        layout = Layout(layout)
        _require((levels.dtype == np.int32, f"levels are {levels.dtype}, expected int32"))
        _check_coding(codebook.size, layout, level_code, run_code, pair_classes)
        block_rows, block_cols = (min(pair) for pair in zip(grid, levels.shape, strict=True))
        payload, counts = self.backend.encode_payload(
            np.ascontiguousarray(levels),
            np.ascontiguousarray(codebook),
            layout=layout,
            level_code=level_code,
            run_code=run_code,
            pair_classes=pair_classes,
            block_rows=block_rows,
            block_cols=block_cols,
            threads=threads,
        )
        weights = np.diff(format.block_bounds(levels.shape, block_rows, block_cols))
        return payload, self._index(payload, counts, format.block_bytes(layout, counts, weights))

    def head(
        self,
        index: Index,
        *,
        shape: Sequence[int],
        dtype: DType,
        step: float,
        codebook: NDArray[np.int32],
        layout: Layout,
        level_code: int,
        run_code: int = 0,
        pair_classes: NDArray[np.uint8] | None = None,
    ) -> bytes:
        """The head of a blob whose blocks have this index, in their order; its payload follows. See `encode`."""
        shape, dtype = tuple(shape), DType(dtype)
        _check_shape(shape)
        _check_tensor(dtype, step, codebook)
        return format.pack_head(
            layout=Layout(layout),
            dtype=dtype,
            shape=shape,
            index=index,
            crc32c=self.backend.crc32c,
            step=step,
            table=Codebook(codebook, pair_classes),
            level_code=level_code,
            run_code=run_code,
        )

    def encode_raw(self, data: ReadableBuffer, shape: Sequence[int], dtype: DType) -> bytes:
        """The RAW blob of a tensor's little-endian bytes. Raises BlobError, BAD_ARGUMENT unless they are as many as
        shape (1 to 8 dimensions, none empty) and dtype say."""
        shape, dtype = tuple(shape), DType(dtype)
        _check_shape(shape)
        payload = bytes(memoryview(data).cast("B"))
        rows_and_cols = (shape[0], math.prod(shape[1:]))
        index = self.raw_index(payload, rows_and_cols, dtype, grid=format.geometry(shape))
        return self.raw_head(index, shape, dtype) + payload

    def raw_index(
        self, payload: ReadableBuffer, shape: tuple[int, int], dtype: DType, *, grid: tuple[int, int]
    ) -> Index:
        """The entries of a RAW blob's index for consecutive whole blocks; shape: of these, grid: see `encode_blocks`.

        Raises BlobError, BAD_ARGUMENT unless the bytes are as many as shape and dtype say.
        """
        itemsize, nbytes = dtype.storage.itemsize, memoryview(payload).nbytes
        if nbytes != math.prod(shape) * itemsize:
            found = f"{nbytes} bytes, but {list(shape)} of {dtype.name} takes {math.prod(shape) * itemsize}"
            raise BlobError(Status.BAD_ARGUMENT, f"data has {found}")
        sizes = np.diff(format.block_bounds(shape, *grid)) * itemsize
        return self._index(payload, sizes.astype(np.uint32)[:, None], sizes)

    def raw_head(self, index: Index, shape: Sequence[int], dtype: DType) -> bytes:
        """The head of a RAW blob whose blocks have this index."""
        shape, dtype = tuple(shape), DType(dtype)
        _check_shape(shape)
        return format.pack_head(layout=Layout.RAW, dtype=dtype, shape=shape, index=index, crc32c=self.backend.crc32c)

    def _index(self, payload: ReadableBuffer, counts: NDArray[np.uint32], sizes: NDArray[np.int64]) -> Index:
        view, crcs, end = memoryview(payload).cast("B"), [], 0
        for size in sizes.tolist():
            begin, end = end, end + size
            crcs.append(self.backend.crc32c(view[begin:end]))
        return Index(counts, np.array(crcs, dtype=np.uint32))


def backend() -> str:
    """The backend in use, in words: which library, or why there is none."""
    return _chosen()[1]


def parse(blob: ReadableBuffer) -> Head:
    """See `Codec.parse`."""
    return default().parse(blob)


def decode(blob: ReadableBuffer, *, out_type: DType | None = None, threads: int = 1) -> NDArray[Any]:
    """See `Codec.decode`."""
    return default().decode(blob, out_type=out_type, threads=threads)


def decode_levels(blob: ReadableBuffer, *, threads: int = 1) -> NDArray[np.int32]:
    """See `Codec.decode_levels`."""
    return default().decode_levels(blob, threads=threads)


def decode_rows(blob: ReadableBuffer, start: int, stop: int, *, out_type: DType | None = None) -> NDArray[Any]:
    """See `Codec.decode_rows`."""
    return default().decode_rows(blob, start, stop, out_type=out_type)


def decode_part(blob: ReadableBuffer, begin: int, end: int, *, out_type: DType | None = None) -> NDArray[Any]:
    """See `Codec.decode_part`."""
    return default().decode_part(blob, begin, end, out_type=out_type)


def decode_into(
    blobs: Sequence[ReadableBuffer],
    outs: Sequence[WriteableBuffer],
    *,
    out_type: DType | None = None,
    threads: int = 1,
) -> None:
    """See `Codec.decode_into`."""
    default().decode_into(blobs, outs, out_type=out_type, threads=threads)


def encode(
    levels: NDArray[np.int32],
    *,
    dtype: DType,
    step: float,
    codebook: NDArray[np.int32],
    layout: Layout,
    level_code: int,
    run_code: int = 0,
    pair_classes: NDArray[np.uint8] | None = None,
    threads: int = 1,
) -> bytes:
    """See `Codec.encode`."""
    return default().encode(
        levels,
        dtype=dtype,
        step=step,
        codebook=codebook,
        layout=layout,
        level_code=level_code,
        run_code=run_code,
        pair_classes=pair_classes,
        threads=threads,
    )


def encode_raw(data: ReadableBuffer, shape: Sequence[int], dtype: DType) -> bytes:
    """See `Codec.encode_raw`."""
    return default().encode_raw(data, shape, dtype)


def default() -> Codec:
    """The codec on the chosen backend."""
    return _chosen()[0]


def numpy_codec() -> Codec:
    """The codec on the numpy backend."""
    return Codec(cast(Backend, fallback))


def native_codec() -> Codec:
    """The codec on the native backend. Raises BackendError that says why it cannot be had."""
    try:
        from bsexport_runtime import native  # loads the library
    except ImportError as error:
        raise BackendError(f"the native backend cannot be imported: {error}") from error
    return Codec(cast(Backend, native))


@cache
def _chosen() -> tuple[Codec, str]:
    """Choose the backend, once. Raises BackendError if the native one is required but cannot be had, or none works."""
    if sys.byteorder != "little":
        raise BackendError("weights are decoded to little-endian numbers: big-endian processors are not supported")
    asked = os.environ.get("BSEXPORT_BACKEND", "")
    if asked not in ("", "numpy"):
        raise BackendError(f"BSEXPORT_BACKEND is {asked!r}, expected nothing or 'numpy'")
    if asked == "numpy":
        return numpy_codec(), "numpy (BSEXPORT_BACKEND asks for it)"
    try:
        chosen = native_codec()
    except BackendError as error:
        if os.environ.get("BSEXPORT_REQUIRE_NATIVE", "") == "1":
            raise
        warnings.warn(f"decoding in numpy, which is slow: {error}", RuntimeWarning, stacklevel=2)
        return numpy_codec(), f"numpy (no native library: {error})"
    return chosen, chosen.backend.name


def _widened(values: NDArray[Any], dtype: DType) -> NDArray[Any]:
    return (values.astype(np.uint32) << 16).view(np.float32) if dtype is DType.BFLOAT16 else values


def _check_shape(shape: tuple[int, ...]) -> None:
    if not 1 <= len(shape) <= format.MAX_DIMS or min(shape) < 1 or math.prod(shape) > format.MAX_WEIGHTS:
        expected = f"1 to {format.MAX_DIMS} dims of at least 1 and at most 2^40 weights"
        raise BlobError(Status.BAD_ARGUMENT, f"shape is {list(shape)}, expected {expected}")


def _check_tensor(dtype: DType, step: float, codebook: NDArray[np.int32]) -> None:
    """What the format asks of a coded tensor, but for its levels."""
    with np.errstate(over="ignore"):
        rounded = float(np.float32(step))
    _require(
        (dtype.coded, f"dtype is {dtype.name}, expected FLOAT32, FLOAT16, FLOAT64 or BFLOAT16"),
        (codebook.dtype == np.int32 and codebook.ndim == 1, "codebook is not a row of int32"),
        (1 <= codebook.size <= format.MAX_SYMBOLS, f"codebook has {codebook.size} levels, expected 1 to 65536"),
        (np.unique(codebook).size == codebook.size, "codebook has a level twice"),
        (np.abs(codebook.astype(np.int64)).max(initial=0) <= MAX_LEVEL, "codebook has a level beyond +-2^24"),
        (0.0 < rounded < math.inf, f"step is {step!r}, which is not a finite float32 above 0"),
    )


def _check_coding(
    symbols: int, layout: Layout, level_code: int, run_code: int, pair_classes: NDArray[np.uint8] | None
) -> None:
    """What the format asks of codes and classes."""
    largest_run = MAX_CODE if layout is Layout.RL else 0
    _require(
        (layout is not Layout.RAW, "layout is RAW, expected EG, RL or BM: RAW blobs come from encode_raw"),
        (0 <= level_code <= MAX_CODE, f"level_code is {level_code}, expected 0 to {MAX_CODE}"),
        (0 <= run_code <= largest_run, f"run_code is {run_code}, expected 0 to {largest_run}"),
    )
    if pair_classes is None:
        return
    classes = pair_classes.astype(np.int64)
    _require(
        (layout.pairs, f"pairs asked for in layout {layout.name}, expected RL or BM"),
        (symbols in format.PAIR_SYMBOLS, f"codebook has {symbols} levels, expected 3 to 65 with pairs"),
        (
            pair_classes.dtype == np.uint8 and pair_classes.shape == (symbols - 1,),
            f"pair_classes are not a row of {symbols - 1} uint8",
        ),
        (bool((np.diff(classes, prepend=0) >= 0).all()), "pair_classes fall"),
        (classes.max(initial=0) <= MAX_CLASS, f"pair_classes go beyond {MAX_CLASS}"),
    )


def _require(*rules: tuple[bool, str]) -> None:
    for good, text in rules:
        if not good:
            raise BlobError(Status.BAD_ARGUMENT, text)
