"""The numpy backend: all blocks of all blobs in lock-step, one block a lane (docs/format.md, sections 5 and 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bsexport_runtime import expgolomb, format
from bsexport_runtime.crc import crc32c, crc32c_ranges
from bsexport_runtime.errors import BlobError, Status
from bsexport_runtime.format import DType, Head, Index, Layout

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["crc32c", "decode_blocks", "decode_into", "encode_payload", "name", "parse"]

name = "numpy"

_BATCH_BLOCKS = 2048
_BATCH_WEIGHTS = 1 << 23
_BATCH_BYTES = 1 << 23


def parse(blob: ReadableBuffer) -> Head:
    """Check a blob's head (docs/format.md, section 9) and return what it declares."""
    return format.parse(blob, crc32c)


def decode_into(
    blobs: Sequence[ReadableBuffer], outs: Sequence[WriteableBuffer], *, levels: bool, threads: int
) -> None:
    """Decode each blob into its buffer: head.nbytes bytes of head.dtype, or with `levels` int32 levels.

    One thread does it all. Raises BlobError for the first blob with a broken head, else for the first bad block.
    """
    _decode([_open(blob, parse(blob), out, levels, None) for blob, out in zip(blobs, outs, strict=True)])


def decode_blocks(
    blob: ReadableBuffer, head: Head, first: int, count: int, out: WriteableBuffer, *, levels: bool
) -> None:
    """Decode blocks first to first + count - 1 of a blob whose head has been checked; they are consecutive weights."""
    _decode([_open(blob, head, out, levels, (first, count))])


@dataclass(frozen=True)
class _Job:
    """A blob and where its blocks go. table: the decoded value of each symbol, as the unsigned words of `out`."""

    payload: NDArray[np.uint8]
    head: Head
    index: Index
    byte_bounds: NDArray[np.int64]
    weight_bounds: NDArray[np.int64]
    table: NDArray[np.unsignedinteger[Any]]
    out: NDArray[np.unsignedinteger[Any]]
    first: int
    count: int


class _Span(NamedTuple):
    """Some consecutive blocks of a job."""

    job: _Job
    first: int
    last: int


def _open(blob: ReadableBuffer, head: Head, out: WriteableBuffer, levels: bool, blocks: tuple[int, int] | None) -> _Job:
    first, count = blocks or (0, head.blocks)
    if first < 0 or count < 0 or first + count > head.blocks:
        raise BlobError(Status.BAD_ARGUMENT, f"blob: blocks {first} to {first + count - 1} of {head.blocks} asked for")
    if levels and head.layout is Layout.RAW:
        raise BlobError(Status.BAD_ARGUMENT, "blob: levels asked for, but a RAW blob has none")
    index = format.read_index(blob, head)
    weight_bounds = head.block_bounds()
    itemsize = 4 if levels else head.itemsize
    buffer = np.frombuffer(out, dtype=np.uint8)
    needed = int(weight_bounds[first + count] - weight_bounds[first]) * itemsize
    if buffer.size != needed:
        raise BlobError(Status.BAD_ARGUMENT, f"blob: output of {buffer.size} bytes, expected {needed}")
    if not buffer.flags.writeable:
        raise BlobError(Status.BAD_ARGUMENT, "blob: output is read-only")
    payload = np.frombuffer(blob, dtype=np.uint8)[head.head_bytes :]
    byte_bounds = np.concatenate([[0], np.cumsum(index.block_bytes)])
    if head.layout is Layout.RAW:
        table = np.empty(0, dtype=np.uint8)
        words = buffer
    else:
        table = _value_table(format.read_codebook(blob, head), head, levels)
        words = buffer.view(table.dtype)
    return _Job(payload, head, index, byte_bounds, weight_bounds, table, words, first, count)


def _value_table(codebook: NDArray[np.int32], head: Head, levels: bool) -> NDArray[np.unsignedinteger[Any]]:
    """The decoded value of each symbol (section 6), as little-endian unsigned words: [symbols]."""
    if levels:
        return codebook.astype("<i4").view("<u4")
    with np.errstate(over="ignore", under="ignore"):
        values = codebook.astype(np.float32) * np.float32(head.step)
        if head.dtype is DType.BFLOAT16:
            bits = values.view(np.uint32).astype(np.uint64)
            return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
        return values.astype(head.dtype.storage).view(f"<u{head.itemsize}")


def _decode(jobs: Sequence[_Job]) -> None:
    for batch in _batches(jobs):
        _decode_batch(batch)


def _batches(jobs: Sequence[_Job]) -> Iterator[list[_Span]]:
    """Cut the jobs' blocks into groups that bound the memory a batch takes."""
    spans: list[_Span] = []
    blocks = weights = size = 0
    for job in jobs:
        start = job.first
        for block in range(job.first, job.first + job.count):
            blocks += 1
            weights += int(job.weight_bounds[block + 1] - job.weight_bounds[block])
            size += int(job.byte_bounds[block + 1] - job.byte_bounds[block])
            if blocks >= _BATCH_BLOCKS or weights >= _BATCH_WEIGHTS or size >= _BATCH_BYTES:
                yield [*spans, _Span(job, start, block + 1)]
                spans, start = [], block + 1
                blocks = weights = size = 0
        if start < job.first + job.count:
            spans.append(_Span(job, start, job.first + job.count))
    if spans:
        yield spans


def _decode_batch(spans: Sequence[_Span]) -> None:
    size = sum(_span_bytes(span) for span in spans)
    data = np.zeros(-(-size // 4) * 4 + expgolomb.SLOP_BYTES, dtype=np.uint8)
    starts, streams = [], []
    end = 0
    for span in spans:
        begin, end = end, end + _span_bytes(span)
        bounds = span.job.byte_bounds
        data[begin:end] = span.job.payload[bounds[span.first] : bounds[span.last]]
        starts.append(begin + bounds[span.first : span.last] - bounds[span.first])
        streams.append(_streams(span, starts[-1]))
    lengths = np.concatenate([np.diff(span.job.byte_bounds[span.first : span.last + 1]) for span in spans])
    crcs = crc32c_ranges(data, np.concatenate(starts), lengths).tolist()
    decoded = expgolomb.decode(data, expgolomb.Streams(*np.concatenate(streams, axis=1)))
    found = iter(crcs)
    for span in spans:
        for block in range(span.first, span.last):
            _place_block(span.job, block, next(found), decoded)


def _span_bytes(span: _Span) -> int:
    return int(span.job.byte_bounds[span.last] - span.job.byte_bounds[span.first])


def _streams(span: _Span, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of expgolomb.Streams for a span's blocks, whose bytes start at `starts`: int64 [4, streams]."""
    head = span.job.head
    counts = span.job.index.counts[span.first : span.last].astype(np.int64)
    if head.layout is Layout.RAW:
        return np.empty((4, 0), dtype=np.int64)
    if head.layout is Layout.EG:
        weights = np.diff(span.job.weight_bounds[span.first : span.last + 1])
        return np.stack([starts, counts[:, 0], np.full_like(starts, head.level_order), weights])
    run_bytes, level_bytes, coded = counts[counts[:, 2] > 0].T
    starts = starts[counts[:, 2] > 0]
    runs = np.stack([starts, run_bytes, np.full_like(starts, head.run_order), coded])
    levels = np.stack([starts + run_bytes, level_bytes, np.full_like(starts, head.level_order), coded])
    return np.stack([runs, levels], axis=2).reshape(4, -1)


def _place_block(job: _Job, block: int, crc: int, decoded: Iterator[NDArray[np.uint16] | None]) -> None:
    """Check one block and write its weights; takes its streams, if it has any, from `decoded`."""
    head = job.head
    where = f"blob: block {block} of {head.blocks}"
    stored = int(job.index.crcs[block])
    if crc != stored:
        text = f"CRC-32C is {crc:#010x}, stored is {stored:#010x}: damaged"
        raise BlobError(Status.BLOCK_CRC, f"{where}: {text}", block)
    begin, end = (int(bound - job.weight_bounds[job.first]) for bound in job.weight_bounds[block : block + 2])
    if head.layout is Layout.RAW:
        payload = job.payload[job.byte_bounds[block] : job.byte_bounds[block + 1]]
        job.out[begin * head.itemsize : end * head.itemsize] = payload
        return
    out = job.out[begin:end]
    if head.layout is Layout.EG:
        good = _place_symbols(job, out, next(decoded))
    elif job.index.counts[block, 2] == 0:
        out[:] = job.table[0]
        good = True
    else:
        good = _place_coded(job, out, next(decoded), next(decoded))
    if not good:
        raise BlobError(Status.BAD_STREAM, f"{where}: not the codewords of its {end - begin} weights", block)


def _place_symbols(job: _Job, out: NDArray[np.unsignedinteger[Any]], symbols: NDArray[np.uint16] | None) -> bool:
    """EG: one symbol a weight."""
    if symbols is None or int(symbols.max()) >= job.head.symbols:
        return False
    job.table.take(symbols, out=out, mode="clip")
    return True


def _place_coded(
    job: _Job, out: NDArray[np.unsignedinteger[Any]], runs: NDArray[np.uint16] | None, levels: NDArray[np.uint16] | None
) -> bool:
    """RL: runs of symbol 0, each followed by one coded weight."""
    if runs is None or levels is None or int(levels.max()) + 1 >= job.head.symbols:
        return False
    places = np.cumsum(runs, dtype=np.int64) + np.arange(runs.size)
    if places[-1] >= out.size:
        return False
    out[:] = job.table[0]
    out[places] = job.table[1:][levels]
    return True


def encode_payload(
    levels: NDArray[np.int32],
    codebook: NDArray[np.int32],
    *,
    layout: Layout,
    level_order: int,
    run_order: int,
    block_rows: int,
    block_cols: int,
    threads: int,
) -> tuple[bytes, NDArray[np.uint32]]:
    """The payload of an EG or RL blob and its index counts, uint32 [blocks, layout.counts].

    levels: int32 [rows, cols], each in the codebook (else BlobError, BAD_ARGUMENT); codebook: int32 [symbols], no level
    twice. One thread does it all.
    """
    ranks = np.argsort(codebook, kind="stable")
    sorted_levels = codebook[ranks]
    payload, counts = [], []
    for row in range(0, levels.shape[0], block_rows):
        for col in range(0, levels.shape[1], block_cols):
            block = levels[row : row + block_rows, col : col + block_cols].ravel()
            places = np.minimum(np.searchsorted(sorted_levels, block), codebook.size - 1)
            if not np.array_equal(sorted_levels[places], block):
                stranger = block[sorted_levels[places] != block][0]
                raise BlobError(Status.BAD_ARGUMENT, f"level {stranger} is not in the codebook of {codebook.size}")
            streams = _encode_block(ranks[places], layout, level_order, run_order)
            payload += streams.data
            counts.append(streams.counts)
    return b"".join(payload), np.array(counts, dtype=np.uint32)


class _Encoded(NamedTuple):
    data: list[bytes]
    counts: list[int]


def _encode_block(symbols: NDArray[np.int64], layout: Layout, level_order: int, run_order: int) -> _Encoded:
    if layout is Layout.EG:
        stream = expgolomb.encode(symbols, level_order)
        return _Encoded([stream], [len(stream)])
    places = np.flatnonzero(symbols)
    runs = expgolomb.encode(np.diff(places, prepend=-1) - 1, run_order)
    levels = expgolomb.encode(symbols[places] - 1, level_order)
    return _Encoded([runs, levels], [len(runs), len(levels), places.size])
