"""The numpy backend: all blocks of all blobs in lock-step, one block a lane (docs/format.md, sections 5 and 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bsexport_runtime import codes, format
from bsexport_runtime.codebook import pairs_by_rank
from bsexport_runtime.crc import crc32c, crc32c_ranges
from bsexport_runtime.errors import BlobError, Status
from bsexport_runtime.format import DType, Head, Index, Layout

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["Opened", "count", "crc32c", "decode_into", "encode_payload", "name", "parse"]

name = "numpy"

Words = NDArray[np.unsignedinteger[Any]]
Values = NDArray[np.uint16] | None

_COUNTING = np.arange(format.MAX_BLOCK_WEIGHTS)
_BATCH_BLOCKS = 2048
_BATCH_WEIGHTS = 1 << 24
_BATCH_BYTES = 1 << 24


def parse(blob: ReadableBuffer) -> Head:
    """Check a blob's head (docs/format.md, section 9) and return what it declares."""
    return format.parse(blob, crc32c)


def decode_into(
    blobs: Sequence[ReadableBuffer], outs: Sequence[WriteableBuffer], *, out_type: DType | None, threads: int
) -> None:
    """Decode each blob into its buffer, in its own type or in `out_type` (docs/format.md, section 6).

    One thread does it all. Raises BlobError for the first blob with a broken head, else for the first bad block.
    """
    _decode([_open(blob, parse(blob), out, out_type, None) for blob, out in zip(blobs, outs, strict=True)])


class Opened:
    """A blob of which blocks are decoded; its head is checked once, and is `head`. Raises BlobError."""

    def __init__(self, blob: ReadableBuffer) -> None:
        self._blob, self.head = blob, parse(blob)

    def decode_blocks(self, first: int, count: int, out: WriteableBuffer, *, out_type: DType | None) -> None:
        """Decode blocks first to first + count - 1, which are consecutive weights."""
        _decode([_open(self._blob, self.head, out, out_type, (first, count))])


def count(values: NDArray[Any], *, mask: int, least: int, shift: int, bins: int) -> NDArray[np.int64]:
    """How often each of the bins ((value & mask) - least) >> shift occurs, int64 [bins]; values: of 32 bits each.

    Raises BlobError, BAD_ARGUMENT if a value is in none of the bins.
    """
    words = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
    found = ((words & np.uint32(mask)) - np.uint32(least & 0xFFFFFFFF)) >> np.uint32(shift)
    if int(found.max(initial=0)) >= bins:
        raise BlobError(Status.BAD_ARGUMENT, f"a value is in none of {bins} bins")
    counts: NDArray[np.int64] = np.bincount(found, minlength=bins)
    return counts


class _Pairs(NamedTuple):
    """words: the decoded values of each rank's two symbols, [ranks, 2]; alone: whether the second is symbol 1."""

    words: Words
    alone: NDArray[np.bool_]


@dataclass(frozen=True)
class _Job:
    """A blob and where its blocks go.

    byte_bounds, weight_bounds: where each block starts, in the payload and in the tensor, and the end.
    table: the decoded value of each symbol, as the unsigned words of `out`. first, count: the blocks that are wanted.
    """

    payload: NDArray[np.uint8]
    head: Head
    index: Index
    byte_bounds: NDArray[np.int64]
    weight_bounds: NDArray[np.int64]
    table: Words
    pairs: _Pairs | None
    out: Words
    first: int
    count: int


class _Span(NamedTuple):
    """Some consecutive blocks of a job."""

    job: _Job
    first: int
    last: int


def _open(
    blob: ReadableBuffer, head: Head, out: WriteableBuffer, asked: DType | None, blocks: tuple[int, int] | None
) -> _Job:
    first, count = blocks or (0, head.blocks)
    if first < 0 or count < 0 or first + count > head.blocks:
        raise BlobError(Status.BAD_ARGUMENT, f"blob: blocks {first} to {first + count - 1} of {head.blocks} asked for")
    out_type = format.output_type(head, asked)
    weight_bounds = head.block_bounds()
    buffer = np.frombuffer(out, dtype=np.uint8)
    needed = int(weight_bounds[first + count] - weight_bounds[first]) * out_type.storage.itemsize
    if buffer.size != needed:
        raise BlobError(Status.BAD_ARGUMENT, f"blob: output of {buffer.size} bytes, expected {needed}")
    if not buffer.flags.writeable:
        raise BlobError(Status.BAD_ARGUMENT, "blob: output is read-only")
    index = format.read_index(blob, head)
    sizes = format.block_bytes(head.layout, index.counts, np.diff(weight_bounds))
    byte_bounds = np.concatenate([[0], np.cumsum(sizes)])
    payload = np.frombuffer(blob, dtype=np.uint8)[head.head_bytes :]
    table, pairs = np.empty(0, dtype=np.uint8), None
    if head.layout is not Layout.RAW:
        codebook = format.read_codebook(blob, head)
        format.check_levels_fit(codebook.levels, out_type)
        table = _words(codebook.levels, head.step, out_type)
        pairs = None if codebook.classes is None else _pair_words(table[1:], codebook.classes)
    return _Job(payload, head, index, byte_bounds, weight_bounds, table, pairs, buffer.view(table.dtype), first, count)


def _words(levels: NDArray[np.int32], step: float, out_type: DType) -> Words:
    """The decoded value of each level (section 6), as little-endian unsigned words."""
    if out_type.holds_levels:
        return levels.astype(out_type.storage).view(f"<u{out_type.storage.itemsize}")
    with np.errstate(over="ignore", under="ignore"):
        values = levels.astype(np.float32) * np.float32(step)
        if out_type is DType.BFLOAT16:
            bits = values.view(np.uint32).astype(np.uint64)
            return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
        return values.astype(out_type.storage).view(f"<u{out_type.storage.itemsize}")


def _pair_words(table: Words, classes: NDArray[np.uint8]) -> _Pairs:
    first, second = np.divmod(pairs_by_rank(classes), classes.size)
    return _Pairs(np.stack([table[first], table[second]], axis=1), second == 0)


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
    data = np.zeros(-(-size // 4) * 4 + codes.SLOP_BYTES, dtype=np.uint8)
    starts, streams = [], []
    end = 0
    for span in spans:
        begin, end = end, end + _span_bytes(span)
        bounds = span.job.byte_bounds
        data[begin:end] = span.job.payload[bounds[span.first] : bounds[span.last]]
        starts.append(begin + bounds[span.first : span.last] - bounds[span.first])
        streams.append(_streams(span, data, starts[-1]))
    lengths = np.concatenate([np.diff(span.job.byte_bounds[span.first : span.last + 1]) for span in spans])
    crcs = crc32c_ranges(data, np.concatenate(starts), lengths).tolist()
    decoded = codes.decode(data, codes.Streams(*np.concatenate(streams, axis=1)))
    found = iter(crcs)
    for span in spans:
        for block in range(span.first, span.last):
            _place_block(span.job, block, next(found), decoded)


def _span_bytes(span: _Span) -> int:
    return int(span.job.byte_bounds[span.last] - span.job.byte_bounds[span.first])


def _streams(span: _Span, data: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of codes.Streams for a span's blocks, whose bytes in data begin at `starts`: int64 [4, streams]."""
    head = span.job.head
    counts = span.job.index.counts[span.first : span.last].astype(np.int64)
    weights = np.diff(span.job.weight_bounds[span.first : span.last + 1])
    level_code, run_code = np.full_like(starts, head.level_code), np.full_like(starts, head.run_code)
    if head.layout is Layout.RAW:
        return np.empty((4, 0), dtype=np.int64)
    if head.layout is Layout.EG:
        return np.stack([starts, counts[:, 0], level_code, weights])
    if head.layout is Layout.BM:
        bitmaps = format.bitmap_bytes(weights)
        coded = _ones(data, starts, bitmaps)
        levels = np.stack([starts + bitmaps, counts[:, 0], level_code, _codewords(coded, head)])
        return levels[:, coded > 0]
    run_bytes, level_bytes, coded = counts.T
    runs = np.stack([starts, run_bytes, run_code, coded])
    levels = np.stack([starts + run_bytes, level_bytes, level_code, _codewords(coded, head)])
    return np.stack([runs, levels], axis=2)[:, coded > 0].reshape(4, -1)


def _codewords(coded: NDArray[np.int64], head: Head) -> NDArray[np.int64]:
    """Codewords of the level streams of blocks with so many coded weights."""
    return (coded + 1) // 2 if head.pairs else coded


def _ones(data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many bits are 1 in each piece of the data: int64 [pieces]."""
    pieces = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
    return np.array([np.unpackbits(data[begin:end]).sum(dtype=np.int64) for begin, end in pieces], dtype=np.int64)


def _place_block(job: _Job, block: int, crc: int, decoded: Iterator[NDArray[np.uint16] | None]) -> None:
    """Check one block and write its weights; takes its streams, if it has any, from `decoded`."""
    head = job.head
    stored = int(job.index.crcs[block])
    if crc != stored:
        text = f"CRC-32C is {crc:#010x}, stored is {stored:#010x}: damaged"
        raise BlobError(Status.BLOCK_CRC, f"blob: block {block} of {head.blocks}: {text}", block)
    begin, end = (int(bound - job.weight_bounds[job.first]) for bound in job.weight_bounds[block : block + 2])
    if head.layout is Layout.RAW:
        payload = job.payload[job.byte_bounds[block] : job.byte_bounds[block + 1]]
        job.out[begin * head.itemsize : end * head.itemsize] = payload
        return
    out = job.out[begin:end]
    if head.layout is Layout.EG:
        good = _place_symbols(job, out, next(decoded))
    elif head.layout is Layout.BM:
        good = _place_bitmap(job, block, out, decoded)
    else:
        good = _place_runs(job, block, out, decoded)
    if not good:
        text = f"not the codewords of its {end - begin} weights"
        raise BlobError(Status.BAD_STREAM, f"blob: block {block} of {head.blocks}: {text}", block)


def _place_symbols(job: _Job, out: Words, symbols: Values) -> bool:
    """EG: one symbol a weight."""
    if symbols is None or int(symbols.max()) >= job.head.symbols:
        return False
    job.table.take(symbols, out=out, mode="clip")
    return True


def _place_runs(job: _Job, block: int, out: Words, decoded: Iterator[Values]) -> bool:
    """RL: runs of symbol 0, each followed by one coded weight."""
    out[:] = job.table[0]
    coded = int(job.index.counts[block, 2])
    if coded == 0:
        return True
    runs, words = next(decoded), _coded_words(job, coded, next(decoded))
    if runs is None or words is None:
        return False
    places = np.cumsum(runs, dtype=np.int64)
    places += _COUNTING[:coded]
    if places[-1] >= out.size:
        return False
    out[places] = words
    return True


def _place_bitmap(job: _Job, block: int, out: Words, decoded: Iterator[Values]) -> bool:
    """BM: a bit for every weight, then the coded weights."""
    payload = job.payload[job.byte_bounds[block] : job.byte_bounds[block + 1]]
    bits = np.unpackbits(payload[: -(-out.size // 8)], bitorder="little").view(np.bool_)
    coded = int(np.count_nonzero(bits))
    level_bytes = int(job.index.counts[block, 0])
    words = _coded_words(job, coded, next(decoded)) if coded else job.table[:0]
    if words is None or bits[out.size :].any() or (level_bytes > 0 and not coded):
        return False
    out[:] = job.table[0]
    out[bits[: out.size]] = words
    return True


def _coded_words(job: _Job, coded: int, values: Values) -> Words | None:
    """The decoded values of a block's coded weights from its level stream's, or None if they cannot be."""
    if values is None:
        return None
    if job.pairs is None:
        return None if int(values.max()) + 1 >= job.head.symbols else job.table[1:].take(values)
    words, alone = job.pairs
    if int(values.max()) >= alone.size or (coded % 2 and not alone[values[-1]]):
        return None
    return words.take(values, axis=0).ravel()[:coded]


def encode_payload(
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
) -> tuple[bytes, NDArray[np.uint32]]:
    """The payload of an EG, RL or BM blob and its index counts, uint32 [blocks, layout.counts].

    levels: int32 [rows, cols], each in the codebook (else BlobError, BAD_ARGUMENT); codebook: int32 [symbols], no level
    twice; pair_classes: uint8 [symbols - 1], None for no pairs. One thread does it all.
    """
    symbol_of = np.argsort(codebook, kind="stable")
    sorted_levels = codebook[symbol_of]
    coder = _Coder(
        layout, level_code, run_code, None if pair_classes is None else np.argsort(pairs_by_rank(pair_classes))
    )
    payload, counts = [], []
    for row in range(0, levels.shape[0], block_rows):
        for col in range(0, levels.shape[1], block_cols):
            block = levels[row : row + block_rows, col : col + block_cols].ravel()
            places = np.minimum(np.searchsorted(sorted_levels, block), codebook.size - 1)
            if not np.array_equal(sorted_levels[places], block):
                stranger = block[sorted_levels[places] != block][0]
                raise BlobError(Status.BAD_ARGUMENT, f"level {stranger} is not in the codebook of {codebook.size}")
            streams = _encode_block(symbol_of[places], coder)
            payload += streams.data
            counts.append(streams.counts)
    return b"".join(payload), np.array(counts, dtype=np.uint32)


class _Coder(NamedTuple):
    """How the symbols of a tensor are written. ranks: of each pair (a, b), at a * A + b - A - 1; None for no pairs."""

    layout: Layout
    level_code: int
    run_code: int
    ranks: NDArray[np.int64] | None


class _Encoded(NamedTuple):
    data: list[bytes]
    counts: list[int]


def _encode_block(symbols: NDArray[np.int64], coder: _Coder) -> _Encoded:
    if coder.layout is Layout.EG:
        stream = codes.encode(symbols, coder.level_code)
        return _Encoded([stream], [len(stream)])
    places = np.flatnonzero(symbols)
    levels = codes.encode(_level_values(symbols[places] - 1, coder.ranks), coder.level_code)
    if coder.layout is Layout.BM:
        return _Encoded([np.packbits(symbols != 0, bitorder="little").tobytes(), levels], [len(levels)])
    runs = codes.encode(np.diff(places, prepend=-1) - 1, coder.run_code)
    return _Encoded([runs, levels], [len(runs), len(levels), places.size])


def _level_values(values: NDArray[np.int64], ranks: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """What a level stream holds for symbols less one: themselves, or the ranks of their pairs."""
    if ranks is None:
        return values
    alphabet = math.isqrt(ranks.size)
    even = np.append(values, np.zeros(values.size % 2, dtype=np.int64))
    values = even[::2] * alphabet + even[1::2]
    return ranks.take(values)
