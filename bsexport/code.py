"""One tensor's way from weights to a blob: quantise, count, rank, choose the layout, encode, decode and compare."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport import codebook, layout
from bsexport.codebook import Histogram
from bsexport.errors import VerifyError
from bsexport.prune import check_finite
from bsexport.quantize import dequantize, quantize
from bsexport_runtime import codec
from bsexport_runtime.codebook import MAX_LEVEL
from bsexport_runtime.format import MAX_SYMBOLS, DType
from bsexport_runtime.int8 import LARGEST

Array = npt.NDArray[Any]

CHUNK = 1 << 18  # weights that one thread takes at a time
CODED_DTYPES = frozenset(dtype.name.lower() for dtype in DType if dtype.coded)


@dataclass(frozen=True)
class CodedTensor:
    """A tensor as a blob. symbols: its histogram in the order of the symbols; None if it is stored as it is (RAW).

    zeros: how many weights are stored as 0.
    largest: the largest magnitude of a coded tensor's weights, 0 for RAW.
    wide: how many rows, and how many columns, of a coded matrix have a level beyond int8's; of other tensors 0.
    why: the reason for RAW, "" if it is coded.
    """

    blob: bytes
    symbols: Histogram | None
    zeros: int
    largest: float
    wide: tuple[int, int]
    why: str


def code_raw(name: str, weights: Array, why: str) -> CodedTensor:
    """The tensor as it is, in a RAW blob. Raises SourceError for a NaN; infinities may be a mask's."""
    check_finite(name, weights, infinities=True)
    blob = codec.encode_raw(weights.tobytes(), weights.shape, dtype_code(weights.dtype))
    return CodedTensor(blob, None, weights.size - int(np.count_nonzero(weights)), 0.0, (0, 0), why)


def code(
    name: str, weights: Array, step: float, limits: layout.Allowed, pool: ThreadPoolExecutor, threads: int
) -> CodedTensor:
    """The tensor quantised and coded in the cheapest way, checked by decoding; RAW, with a reason, if that is smaller.

    weights: float16, bfloat16, float32 or float64, any shape of at least one dimension.
    Raises SourceError for NaN or infinite weights, VerifyError if the blob does not decode to what was put in.
    """
    levels: npt.NDArray[np.int32] = np.empty(weights.size, np.int32)
    flat = weights.reshape(-1)

    def quantize_chunk(part: slice) -> Histogram | None:
        check_finite(name, flat[part])
        chunk = quantize(flat[part], step)
        if np.abs(chunk).max() > MAX_LEVEL:
            return None
        levels[part] = chunk
        return codebook.count(levels[part])

    counted = list(pool.map(quantize_chunk, _parts(weights.size)))
    if None in counted:
        return code_raw(name, weights, f"a level is beyond 2^24 at step {step:g}")
    symbols = codebook.rank(codebook.merge([histogram for histogram in counted if histogram is not None]))
    if symbols.levels.size > MAX_SYMBOLS:
        return code_raw(name, weights, f"more than {MAX_SYMBOLS} distinct levels at step {step:g}")
    with np.errstate(over="ignore"):
        values = dequantize(symbols.levels, step).astype(weights.dtype)
    if not np.isfinite(values).all():
        return code_raw(name, weights, f"at step {step:g} a weight would round beyond what {weights.dtype.name} holds")
    levels = levels.reshape(weights.shape)
    coding = layout.choose(symbols, levels, limits)
    blob = codec.encode(
        levels,
        dtype=dtype_code(weights.dtype),
        step=step,
        codebook=symbols.levels,
        layout=coding.layout,
        level_code=coding.level_code,
        run_code=coding.run_code,
        pair_classes=coding.pair_classes,
        threads=threads,
    )
    if len(blob) >= weights.nbytes:
        return code_raw(name, weights, f"coded it would take {len(blob)} bytes instead of {weights.nbytes}")
    _compare(name, blob, levels, step, weights.dtype, pool)
    largest = max(float(flat.max()), -float(flat.min()))
    return CodedTensor(blob, symbols, symbols.zeros, largest, _wide(levels, symbols), "")


def _wide(levels: npt.NDArray[np.int32], symbols: Histogram) -> tuple[int, int]:
    """How many rows, and how many columns, of a matrix have a level beyond +-LARGEST."""
    if levels.ndim != 2 or np.abs(symbols.levels).max() <= LARGEST:
        return 0, 0
    rows, columns = (np.maximum(levels.max(axis), -levels.min(axis)) > LARGEST for axis in (1, 0))
    return int(np.count_nonzero(rows)), int(np.count_nonzero(columns))


def _compare(
    name: str, blob: bytes, levels: npt.NDArray[np.int32], step: float, dtype: np.dtype[Any], pool: ThreadPoolExecutor
) -> None:
    """Decode the blob, a few rows at a time, and hold it against the dequantised levels bit by bit."""

    def differs(rows: slice) -> bool:
        decoded = codec.decode_rows(blob, rows.start, rows.stop)
        expected = dequantize(levels[rows], step).astype(dtype).astype(decoded.dtype)
        return not np.array_equal(decoded, expected)

    rows_together = max(1, CHUNK * levels.shape[0] // levels.size)
    if any(pool.map(differs, _parts(levels.shape[0], rows_together))):
        raise VerifyError(
            f"tensor {name}: its blob does not decode to the weights that were coded; nothing was written"
        )


def dtype_code(dtype: np.dtype[Any]) -> DType:
    """The format's number of a numpy or ml_dtypes type (docs/format.md, section 2)."""
    return DType[dtype.name.replace("_", "").upper()]


def _parts(size: int, together: int = CHUNK) -> Iterator[slice]:
    return (slice(start, min(start + together, size)) for start in range(0, size, together))
