"""The blob's bytes: every offset and every check of docs/format.md, sections 2 to 5 and 9.

This is the only Python place with offsets.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from bsexport_runtime import codebook, codes
from bsexport_runtime.codebook import Codebook
from bsexport_runtime.dtype import DType as DType
from bsexport_runtime.errors import BlobError, Status

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAGIC = b"BSXB"
VERSION = 0
ALIGNMENT = 64
MAX_DIMS = 8
MAX_WEIGHTS = 1 << 40
MAX_BLOCK_WEIGHTS = 1 << 16
MAX_SYMBOLS = 1 << 16
PAIR_SYMBOLS = range(3, 66)

_FIXED = struct.Struct("<4sHBBBBBBIIIIIQIBB2s")
_HEAD_CRC = slice(40, 44)
_WRITER_BLOCK_WEIGHTS = 1 << 14


def align(offset: int) -> int:
    """The next place at which a blob or a tensor of an arena may start."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


class Layout(IntEnum):
    """How a blob's weights are stored (section 6)."""

    RAW = 0
    EG = 1
    RL = 2
    BM = 3

    @property
    def counts(self) -> int:
        """Counts of one index entry, the CRC not among them (section 5)."""
        return 3 if self is Layout.RL else 1

    @property
    def pairs(self) -> bool:
        """Whether its level stream can code pairs (section 6)."""
        return self in (Layout.RL, Layout.BM)


@dataclass(frozen=True)
class Head:
    """What a blob's head declares, after all its checks.

    step is the float32 of the file (0.0 for RAW), the codes are code bytes (section 3; 0 where unused), and every
    *_bytes is a length in bytes.
    """

    layout: Layout
    dtype: DType
    shape: tuple[int, ...]
    level_code: int
    run_code: int
    codebook_code: int
    step: float
    symbols: int
    block_rows: int
    block_cols: int
    codebook_bytes: int
    index_width: int
    pairs: bool
    payload_bytes: int
    head_bytes: int

    @property
    def level_order(self) -> int:
        return codes.order_of(self.level_code)

    @property
    def run_order(self) -> int:
        return codes.order_of(self.run_code)

    @property
    def codebook_order(self) -> int:
        return codes.order_of(self.codebook_code)

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def cols(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def blocks_per_row(self) -> int:
        """Blocks that one row, or one group of block_rows whole rows, is cut into."""
        return _ceil_div(self.cols, self.block_cols)

    @property
    def blocks(self) -> int:
        return _ceil_div(self.rows, self.block_rows) * self.blocks_per_row

    @property
    def itemsize(self) -> int:
        """Bytes of one decoded weight."""
        return self.dtype.storage.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded tensor."""
        return self.weights * self.itemsize

    @property
    def entry_bytes(self) -> int:
        """Bytes of one index entry."""
        return self.layout.counts * self.index_width + 4

    @property
    def blob_bytes(self) -> int:
        return self.head_bytes + self.payload_bytes

    @property
    def index_offset(self) -> int:
        return _codebook_offset(len(self.shape)) + self.codebook_bytes

    def block_shape(self, block: int) -> tuple[int, int]:
        """Rows and columns of one block; the last of a row or of the tensor may be smaller."""
        group, piece = divmod(block, self.blocks_per_row)
        return (
            min(self.block_rows, self.rows - group * self.block_rows),
            min(self.block_cols, self.cols - piece * self.block_cols),
        )

    def first_weight(self, block: int) -> int:
        """Where a block starts in the row-major tensor; its end for block = blocks."""
        if block >= self.blocks:
            return self.weights
        group, piece = divmod(block, self.blocks_per_row)
        return group * self.block_rows * self.cols + piece * self.block_cols

    def block_of(self, weight: int) -> int:
        """The block that holds a weight of the row-major tensor."""
        group, rest = divmod(weight, self.block_rows * self.cols)
        return group * self.blocks_per_row + (rest // self.block_cols if self.block_rows == 1 else 0)

    def block_bounds(self) -> NDArray[np.int64]:
        """Where each block starts, in weights of the row-major tensor, and the end: int64 [blocks + 1].

        A block is whole rows or a piece of one row, so that consecutive blocks are consecutive weights.
        """
        return block_bounds(self.shape, self.block_rows, self.block_cols)


class Index(NamedTuple):
    """The block index: counts as in section 5, uint32 [blocks, layout.counts]; the blocks' CRCs, uint32 [blocks]."""

    counts: NDArray[np.uint32]
    crcs: NDArray[np.uint32]


def geometry(shape: Sequence[int]) -> tuple[int, int]:
    """The block_rows and block_cols that a writer takes for a tensor (section 5)."""
    rows, cols = shape[0], math.prod(shape[1:])
    if cols <= _WRITER_BLOCK_WEIGHTS:
        return min(rows, _WRITER_BLOCK_WEIGHTS // cols), cols
    return 1, cols if cols <= MAX_BLOCK_WEIGHTS else _WRITER_BLOCK_WEIGHTS


def block_bounds(shape: Sequence[int], block_rows: int, block_cols: int) -> NDArray[np.int64]:
    """Where each block of a tensor starts, in weights, and the end: int64 [blocks + 1]; see `Head.block_bounds`."""
    rows, cols = shape[0], math.prod(shape[1:])
    starts = np.arange(0, rows, block_rows, dtype=np.int64)[:, None] * cols + np.arange(0, cols, block_cols)
    bounds: NDArray[np.int64] = np.append(starts.ravel(), rows * cols)
    return bounds


def head_bytes(ndim: int, codebook_bytes: int, index_bytes: int) -> int:
    """Bytes of a head, padding included."""
    return _ceil_div(_codebook_offset(ndim) + codebook_bytes + index_bytes, ALIGNMENT) * ALIGNMENT


def block_bytes(layout: Layout, counts: NDArray[np.uint32], weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes of each block, int64 [blocks], from the index's counts and the blocks' weights."""
    streams: NDArray[np.int64] = counts[:, :2].sum(axis=1, dtype=np.int64)
    return streams + bitmap_bytes(weights) if layout is Layout.BM else streams


def bitmap_bytes(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes of the bitmaps of BM blocks of so many weights."""
    return (weights + 7) // 8


def parse(blob: ReadableBuffer, crc32c: Callable[[ReadableBuffer], int]) -> Head:
    """Check a blob's head as section 9 says, in its order, and return what it declares.

    Raises BlobError with the status of the first rule that is broken. The payload's bytes are not looked at.
    """
    view = memoryview(blob)
    view = view.cast("B") if view.nbytes else memoryview(b"")
    fixed = _check_fixed(view)
    head = _check_shape(view, fixed)
    _check_head_bytes(view, head, fixed, crc32c)
    if head.layout is not Layout.RAW:
        read_codebook(view, head)
    _check_index(head, read_index(view, head))
    if len(view) < head.blob_bytes:
        _refuse(Status.TRUNCATED, f"{len(view)} bytes, but head and payload take {head.blob_bytes}")
    if len(view) > head.blob_bytes:
        _refuse(Status.TRAILING_BYTES, f"{len(view)} bytes, but head and payload end at {head.blob_bytes}")
    return head


def read_index(blob: ReadableBuffer, head: Head) -> Index:
    """The block index of a blob whose head is all there."""
    entry = np.dtype([("counts", f"<u{head.index_width}", (head.layout.counts,)), ("crc", "<u4")])
    view = memoryview(blob).cast("B")
    entries: NDArray[np.void] = np.frombuffer(view, dtype=entry, count=head.blocks, offset=head.index_offset)
    return Index(entries["counts"].astype(np.uint32), entries["crc"].astype(np.uint32))


def read_codebook(blob: ReadableBuffer, head: Head) -> Codebook:
    """The levels and classes of a blob whose head is all there. Raises BlobError (BAD_CODEBOOK): `codebook.read`."""
    start = head.index_offset - head.codebook_bytes
    data = bytes(memoryview(blob).cast("B")[start : head.index_offset])
    return codebook.read(data, head.symbols, head.codebook_order, pairs=head.pairs)


def output_type(head: Head, asked: DType | None) -> DType:
    """The type that a blob is decoded to: its own, or the one asked for (section 6).

    Raises BlobError (BAD_ARGUMENT) if the blob cannot be had in that type, whatever its levels.
    """
    if asked is None or asked is head.dtype:
        return head.dtype
    if head.layout is Layout.RAW:
        _refuse(Status.BAD_ARGUMENT, f"{asked.name} asked for, but a RAW blob has its {head.dtype.name} alone")
    if not (asked.coded or asked.holds_levels):
        _refuse(Status.BAD_ARGUMENT, f"{asked.name} asked for, which coded weights do not come in")
    return asked


def check_levels_fit(levels: NDArray[np.int32], out_type: DType) -> None:
    """Raise BlobError (BAD_ARGUMENT) if levels are asked for in a type that does not hold each of the codebook's."""
    if not out_type.holds_levels:
        return
    bits = 8 * out_type.storage.itemsize - 1
    wrong = (levels < -(1 << bits)) | (levels >= 1 << bits)
    if wrong.any():
        _refuse(Status.BAD_ARGUMENT, f"level {levels[wrong][0]} does not fit {out_type.name}, which was asked for")


def pack_head(
    *,
    layout: Layout,
    dtype: DType,
    shape: tuple[int, ...],
    index: Index,
    crc32c: Callable[[ReadableBuffer], int],
    step: float = 0.0,
    table: Codebook | None = None,
    level_code: int = 0,
    run_code: int = 0,
) -> bytes:
    """The head of a blob with a writer's geometry, padding included; RAW has neither step nor codebook."""
    codebook_order, codebook_bits = (0, b"") if table is None else codebook.write(table)
    weights = np.diff(block_bounds(shape, *geometry(shape)))
    width = 2 if int(index.counts.max()) < 1 << 16 else 4
    entry = np.dtype([("counts", f"<u{width}", (layout.counts,)), ("crc", "<u4")])
    entries = np.empty(len(index.crcs), dtype=entry)
    entries["counts"], entries["crc"] = index.counts, index.crcs
    fixed = _Fixed(
        magic=MAGIC,
        version=VERSION,
        layout=layout,
        dtype=dtype,
        ndim=len(shape),
        level_code=level_code,
        run_code=run_code,
        codebook_code=codebook_order,
        step_bits=_float32_bits(step),
        symbols=0 if table is None else table.levels.size,
        block_rows=geometry(shape)[0],
        block_cols=geometry(shape)[1],
        codebook_bytes=len(codebook_bits),
        payload_bytes=int(block_bytes(layout, index.counts, weights).sum()),
        head_crc=0,
        index_width=width,
        pairs=table is not None and table.classes is not None,
        reserved=bytes(2),
    )
    head = bytearray(_FIXED.pack(*fixed) + struct.pack(f"<{len(shape)}Q", *shape) + codebook_bits + entries.tobytes())
    head += bytes(-len(head) % ALIGNMENT)
    head[_HEAD_CRC] = struct.pack("<I", crc32c(head))
    return bytes(head)


class _Fixed(NamedTuple):
    """The 48 bytes that every head starts with, in their order."""

    magic: bytes
    version: int
    layout: int
    dtype: int
    ndim: int
    level_code: int
    run_code: int
    codebook_code: int
    step_bits: int
    symbols: int
    block_rows: int
    block_cols: int
    codebook_bytes: int
    payload_bytes: int
    head_crc: int
    index_width: int
    pairs: int
    reserved: bytes


def _check_fixed(view: memoryview) -> _Fixed:
    """Checks 1 to 10: the fields that can be judged one by one."""
    if len(view) < _FIXED.size:
        _refuse(Status.TRUNCATED, f"{len(view)} bytes, but a head takes at least {_FIXED.size}")
    fixed = _Fixed(*_FIXED.unpack_from(view))
    if fixed.magic != MAGIC:
        _refuse(Status.BAD_MAGIC, f"starts with {fixed.magic!r}, expected {MAGIC!r}: this is no bsexport blob")
    if fixed.version != VERSION:
        _refuse(Status.BAD_VERSION, f"has format version {fixed.version}, this runtime reads {VERSION}")
    if fixed.layout not in set(Layout):
        _refuse(Status.BAD_LAYOUT, f"layout is {fixed.layout}, expected 0 (RAW), 1 (EG), 2 (RL) or 3 (BM)")
    raw = fixed.layout == Layout.RAW
    if fixed.dtype not in set(DType) or not (raw or DType(fixed.dtype).coded):
        _refuse(Status.BAD_DTYPE, f"dtype is {fixed.dtype}, which layout {Layout(fixed.layout).name} does not have")
    if not 1 <= fixed.ndim <= MAX_DIMS:
        _refuse(Status.BAD_SHAPE, f"ndim is {fixed.ndim}, expected 1 to {MAX_DIMS}")
    _check_codes(fixed)
    _check_numbers(fixed, raw)
    return fixed


def _check_codes(fixed: _Fixed) -> None:
    layout = Layout(fixed.layout)
    largest = {
        "level_code": 0 if layout is Layout.RAW else codes.MAX_CODE,
        "run_code": codes.MAX_CODE if layout is Layout.RL else 0,
        "codebook_code": 0 if layout is Layout.RAW else codes.MAX_ORDER,
    }
    for name, limit in largest.items():
        if getattr(fixed, name) > limit:
            found = getattr(fixed, name)
            _refuse(Status.BAD_CODE, f"{name} is {found}, expected 0 to {limit} in layout {layout.name}")
    if fixed.index_width not in (2, 4):
        _refuse(Status.BAD_CODE, f"index_width is {fixed.index_width}, expected 2 or 4")
    if fixed.pairs > layout.pairs:
        _refuse(Status.BAD_CODE, f"pairs is {fixed.pairs}, expected 0{layout.pairs * ' or 1'} in layout {layout.name}")


def _check_numbers(fixed: _Fixed, raw: bool) -> None:
    step = _float32(fixed.step_bits)
    if raw and fixed.step_bits != 0:
        _refuse(Status.BAD_STEP, f"step is {step!r}, but a RAW blob has none (0)")
    if not raw and not 0.0 < step < math.inf:
        _refuse(Status.BAD_STEP, f"step is {step!r}, expected a finite number above 0")
    if raw and (fixed.symbols or fixed.codebook_bytes):
        found = f"{fixed.symbols} symbols in {fixed.codebook_bytes} bytes"
        _refuse(Status.BAD_CODEBOOK, f"declares a codebook of {found}, but a RAW blob has none")
    if not raw and not 1 <= fixed.symbols <= MAX_SYMBOLS:
        _refuse(Status.BAD_CODEBOOK, f"symbols is {fixed.symbols}, expected 1 to {MAX_SYMBOLS}")
    if fixed.pairs and fixed.symbols not in PAIR_SYMBOLS:
        limits = f"{PAIR_SYMBOLS[0]} to {PAIR_SYMBOLS[-1]}"
        _refuse(Status.BAD_CODEBOOK, f"symbols is {fixed.symbols}, expected {limits} with pairs")
    if any(fixed.reserved):
        _refuse(Status.BAD_RESERVED, f"reserved bytes are {fixed.reserved.hex(' ')}, expected zeros")


def _check_shape(view: memoryview, fixed: _Fixed) -> Head:
    """Checks 11 to 14: dims, geometry, and that the head is all there."""
    dims_end = _codebook_offset(fixed.ndim)
    if len(view) < dims_end:
        _refuse(Status.TRUNCATED, f"{len(view)} bytes, but {fixed.ndim} dims end at {dims_end}")
    shape = struct.unpack_from(f"<{fixed.ndim}Q", view, _FIXED.size)
    if min(shape) < 1 or math.prod(shape) > MAX_WEIGHTS:
        _refuse(Status.BAD_SHAPE, f"shape is {list(shape)}, expected dims of at least 1 and at most 2^40 weights")
    head = Head(
        layout=Layout(fixed.layout),
        dtype=DType(fixed.dtype),
        shape=shape,
        level_code=fixed.level_code,
        run_code=fixed.run_code,
        codebook_code=fixed.codebook_code,
        step=_float32(fixed.step_bits),
        symbols=fixed.symbols,
        block_rows=fixed.block_rows,
        block_cols=fixed.block_cols,
        codebook_bytes=fixed.codebook_bytes,
        index_width=fixed.index_width,
        pairs=bool(fixed.pairs),
        payload_bytes=fixed.payload_bytes,
        head_bytes=0,
    )
    _check_blocks(head)
    needed = head_bytes(fixed.ndim, head.codebook_bytes, head.blocks * head.entry_bytes)
    if len(view) < needed:
        _refuse(Status.TRUNCATED, f"{len(view)} bytes, but the head with its {head.blocks} blocks takes {needed}")
    return replace(head, head_bytes=needed)


def _check_blocks(head: Head) -> None:
    inside = 1 <= head.block_rows <= head.rows and 1 <= head.block_cols <= head.cols
    consecutive = head.block_cols == head.cols or head.block_rows == 1
    if not inside or not consecutive or head.block_rows * head.block_cols > MAX_BLOCK_WEIGHTS:
        found = f"blocks are {head.block_rows} x {head.block_cols} of a {head.rows} x {head.cols} matrix"
        expected = f"whole rows or a piece of one row, at most {MAX_BLOCK_WEIGHTS} weights"
        _refuse(Status.BAD_BLOCKS, f"{found}, expected {expected}")


def _check_head_bytes(view: memoryview, head: Head, fixed: _Fixed, crc32c: Callable[[ReadableBuffer], int]) -> None:
    """Checks 15 and 16: the head's CRC and its padding."""
    data = bytearray(view[: head.head_bytes])
    data[_HEAD_CRC] = bytes(4)
    found = crc32c(data)
    if found != fixed.head_crc:
        _refuse(Status.HEAD_CRC, f"CRC-32C of the head is {found:#010x}, stored is {fixed.head_crc:#010x}: damaged")
    if any(data[head.index_offset + head.blocks * head.entry_bytes :]):
        _refuse(Status.BAD_RESERVED, "padding after the index is not zero")


def _check_index(head: Head, index: Index) -> None:
    """Check 18: the counts agree with the payload's length, the block sizes and each other."""
    weights = np.diff(head.block_bounds())
    total = int(block_bytes(head.layout, index.counts, weights).sum())
    if total != head.payload_bytes:
        _refuse(Status.BAD_INDEX, f"blocks add up to {total} bytes, but payload_bytes is {head.payload_bytes}")
    wrong = _impossible(head, index.counts.astype(np.int64), weights)
    if wrong.any():
        block = int(wrong.argmax())
        found = f"{index.counts[block].tolist()} for {int(weights[block])} weights"
        _refuse(Status.BAD_INDEX, f"index of block {block} of {head.blocks} cannot be: {found}")


def _impossible(head: Head, counts: NDArray[np.int64], weights: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which blocks' counts cannot be: bool [blocks]. A codeword of order k has at least k + 1 bits."""
    wrong: NDArray[np.bool_] = np.zeros(weights.size, dtype=np.bool_)
    if head.layout is Layout.RAW:
        wrong = counts[:, 0] != weights * head.itemsize
    elif head.layout is Layout.EG:
        wrong = 8 * counts[:, 0] < weights * (head.level_order + 1)
    elif head.layout is Layout.RL:
        run_bytes, level_bytes, coded = counts.T
        values = (coded + 1) // 2 if head.pairs else coded
        short = (8 * run_bytes < coded * (head.run_order + 1)) | (8 * level_bytes < values * (head.level_order + 1))
        wrong = (coded > weights) | short | ((coded == 0) & (run_bytes + level_bytes > 0))
    return wrong


def _codebook_offset(ndim: int) -> int:
    return _FIXED.size + 8 * ndim


def _float32_bits(number: float) -> int:
    return int(np.float32(number).view(np.uint32))


def _float32(bits: int) -> float:
    return float(np.uint32(bits).view(np.float32))


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _refuse(status: Status, text: str) -> NoReturn:
    raise BlobError(status, f"blob: {text}")
