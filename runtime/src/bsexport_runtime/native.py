"""The native backend: libbsx (runtime/native) through ctypes. Importing it raises BackendError if it cannot be used.

ctypes lets go of the interpreter lock during a call, so that threads decode and encode side by side.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from bsexport_runtime import format
from bsexport_runtime.errors import BackendError, BlobError, Status
from bsexport_runtime.format import DType, Head, Layout

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "LIBRARY",
    "Opened",
    "count",
    "crc32c",
    "decode_into",
    "encode_payload",
    "has_operators",
    "name",
    "parse",
    "workspace_bytes",
]

Bytes = NDArray[np.uint8]
T = TypeVar("T")

LIBRARY = {"win32": "bsx.dll", "darwin": "libbsx.dylib"}.get(sys.platform, "libbsx.so")
_TASK_WEIGHTS = 1 << 20  # what one thread takes at a time
_AROUND_CACHE = 1  # BSX_AROUND_CACHE
_CACHE_BYTES = 1 << 25  # output beyond the last-level cache of most processors
_COUNT_TABLES, _FEW_BINS = 4, 1 << 14  # so many tables, while they fit into the cache
_ENCODE_BYTES = 1 << 20  # the encoder's output buffer, unless a block can need more


class _CHead(ctypes.Structure):
    """bsx_head of bsx.h."""

    _fields_ = (
        ("dims", ctypes.c_uint64 * 8),
        ("rows", ctypes.c_uint64),
        ("cols", ctypes.c_uint64),
        ("weights", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("head_bytes", ctypes.c_uint64),
        ("payload_bytes", ctypes.c_uint64),
        ("codebook_offset", ctypes.c_uint64),
        ("index_offset", ctypes.c_uint64),
        ("workspace_bytes", ctypes.c_uint64),
        ("scratch_bytes", ctypes.c_uint64),
        ("step", ctypes.c_float),
        ("least_level", ctypes.c_int32),
        ("greatest_level", ctypes.c_int32),
        ("symbols", ctypes.c_uint32),
        ("block_rows", ctypes.c_uint32),
        ("block_cols", ctypes.c_uint32),
        ("codebook_bytes", ctypes.c_uint32),
        ("layout", ctypes.c_uint8),
        ("dtype", ctypes.c_uint8),
        ("ndim", ctypes.c_uint8),
        ("level_code", ctypes.c_uint8),
        ("run_code", ctypes.c_uint8),
        ("codebook_code", ctypes.c_uint8),
        ("index_width", ctypes.c_uint8),
        ("pairs", ctypes.c_uint8),
        ("item_bytes", ctypes.c_uint8),
    )


class _CPlan(ctypes.Structure):
    """bsx_plan of bsx.h."""

    _fields_ = (
        ("rows", ctypes.c_uint64),
        ("cols", ctypes.c_uint64),
        ("symbols", ctypes.c_uint32),
        ("block_rows", ctypes.c_uint32),
        ("block_cols", ctypes.c_uint32),
        ("layout", ctypes.c_uint8),
        ("level_code", ctypes.c_uint8),
        ("run_code", ctypes.c_uint8),
        ("pairs", ctypes.c_uint8),
    )


class _CProgress(ctypes.Structure):
    """bsx_progress of bsx.h."""

    _fields_ = (("blocks", ctypes.c_uint64), ("bytes", ctypes.c_size_t), ("bad_level", ctypes.c_uint64))


def _signatures() -> dict[str, tuple[type[Any], list[type[Any]]]]:
    """Result and arguments of the functions of bsx.h that are called here; every buffer is followed by its size."""
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
    buffer: list[type[Any]] = [pointer, size]
    return {
        "bsx_crc32c": (ctypes.c_uint32, buffer),
        "bsx_crc32c_name": (ctypes.c_char_p, []),
        "bsx_parse": (ctypes.c_int, [*buffer, pointer]),
        "bsx_prepare": (ctypes.c_int, [*buffer, pointer, ctypes.c_int, *buffer]),
        "bsx_decode": (
            ctypes.c_int,
            [*buffer, pointer, *buffer, number, number, ctypes.c_uint, *buffer, *buffer, pointer],
        ),
        "bsx_lookup_bytes": (size, [size]),
        "bsx_lookup_prepare": (ctypes.c_int, [*buffer, pointer, *buffer]),
        "bsx_block_bound": (size, [pointer]),
        "bsx_count": (
            ctypes.c_int,
            [*buffer, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint, size, *buffer],
        ),
        "bsx_encode": (ctypes.c_int, [pointer, *buffer, *buffer, number, number, *buffer, *buffer, pointer]),
    }


def load_library(path: Path, version: str) -> ctypes.CDLL:
    """The library at `path`, checked to be libbsx of this version. Raises BackendError with the reason if it is not."""
    if not path.exists():
        raise BackendError(f"{path.name} is not installed: bsexport-runtime was built without a C compiler")
    try:
        library = ctypes.CDLL(str(path))
        library.bsx_head_size.restype = ctypes.c_size_t
        found, head_size = library.bsx_version(), library.bsx_head_size()
        for function, (result, arguments) in _signatures().items():
            getattr(library, function).restype = result
            getattr(library, function).argtypes = arguments
    except (OSError, AttributeError) as error:
        raise BackendError(f"{path.name} cannot be loaded: {error}") from error
    major, minor, patch = (int(part) for part in version.split("."))
    if found != major << 16 | minor << 8 | patch or head_size != ctypes.sizeof(_CHead):
        other = f"{found >> 16}.{found >> 8 & 255}.{found & 255} with a head of {head_size} bytes"
        expected = f"{version} with {ctypes.sizeof(_CHead)}"
        raise BackendError(f"{path.name} is version {other}, expected {expected}: reinstall bsexport-runtime")
    return library


def _installed() -> tuple[ctypes.CDLL, str]:
    from bsexport_runtime import __version__  # not at the top: the package may still be being imported

    library = load_library(Path(__file__).with_name(LIBRARY), __version__)
    return library, f"native: libbsx {__version__} (crc32c by {library.bsx_crc32c_name().decode()})"


_lib, name = _installed()


def crc32c(data: ReadableBuffer) -> int:
    """The CRC-32C of some bytes (docs/format.md, section 2)."""
    return int(_lib.bsx_crc32c(*_buffer(_bytes_of(data))))


def parse(blob: ReadableBuffer) -> Head:
    """Check a blob's head (docs/format.md, section 9) and return what it declares. Raises BlobError."""
    return _head_of(_parse(_bytes_of(blob)))


def workspace_bytes(blob: ReadableBuffer) -> int:
    """What the tables take that decode a blob, in bytes. Raises BlobError."""
    return int(_parse(_bytes_of(blob)).workspace_bytes)


def has_operators() -> bool:
    """Whether the library brings its operators for onnxruntime (docs/format.md, section 8)."""
    return hasattr(_lib, "RegisterCustomOps")


def _head_of(head: _CHead) -> Head:
    return Head(
        layout=Layout(head.layout),
        dtype=DType(head.dtype),
        shape=tuple(head.dims[: head.ndim]),
        level_code=head.level_code,
        run_code=head.run_code,
        codebook_code=head.codebook_code,
        step=head.step,
        symbols=head.symbols,
        block_rows=head.block_rows,
        block_cols=head.block_cols,
        codebook_bytes=head.codebook_bytes,
        index_width=head.index_width,
        pairs=bool(head.pairs),
        payload_bytes=head.payload_bytes,
        head_bytes=head.head_bytes,
    )


def decode_into(
    blobs: Sequence[ReadableBuffer], outs: Sequence[WriteableBuffer], *, out_type: DType | None, threads: int
) -> None:
    """Decode each blob into its buffer, in its own type or in `out_type` (docs/format.md, section 6).

    Raises BlobError for the first blob with a broken head, else for the first bad block.
    """
    jobs = [_open(blob, out, out_type) for blob, out in zip(blobs, outs, strict=True)]
    flags = _AROUND_CACHE if sum(job.out.size for job in jobs) > _CACHE_BYTES else 0
    scratch = _Scratch(max((job.head.scratch_bytes for job in jobs), default=0))

    def decode(task: tuple[_Job, range]) -> None:
        job, blocks = task
        job.decode(blocks, scratch.mine(), flags)

    tasks = ((job, blocks) for job in jobs for blocks in _ranges(job.head.blocks, job.head.weights))
    _run(decode, tasks, threads)


class Opened:
    """A blob of which blocks are decoded, by any number of threads: its head is checked and its tables are made once.

    head: what it declares. Raises BlobError.
    """

    def __init__(self, blob: ReadableBuffer) -> None:
        self._blob = _bytes_of(blob)
        self._head = _parse(self._blob)
        self.head = _head_of(self._head)
        self._tables: dict[DType, _Tables] = {}

    def decode_blocks(self, first: int, count: int, out: WriteableBuffer, *, out_type: DType | None) -> None:
        """Decode blocks first to first + count - 1, which are consecutive weights."""
        blocks = range(first, first + count)
        if first < 0 or count < 0 or first + count > self.head.blocks:
            text = f"blob: blocks {first} to {first + count - 1} of {self.head.blocks} asked for"
            raise BlobError(Status.BAD_ARGUMENT, text)
        asked = format.output_type(self.head, out_type)
        tables = self._tables.setdefault(asked, _Tables(self._blob, self._head, asked))
        job = _job(self._blob, self._head, self.head, out, out_type, blocks, tables)
        job.decode(blocks, _Scratch(self._head.scratch_bytes).mine(), 0)


def count(values: NDArray[Any], *, mask: int, least: int, shift: int, bins: int) -> NDArray[np.int64]:
    """How often each of the bins ((value & mask) - least) >> shift occurs, int64 [bins]; values: of 32 bits each.

    Raises BlobError, BAD_ARGUMENT if a value is in none of the bins.
    """
    tables = np.zeros((_COUNT_TABLES if bins <= _FEW_BINS else 1, bins), dtype=np.uint32)
    data = np.ascontiguousarray(values)
    address = data.__array_interface__["data"][0]
    status = _lib.bsx_count(address, data.size, mask, least & 0xFFFFFFFF, shift, bins, tables.ctypes.data, tables.size)
    if status != Status.OK:
        raise BlobError(Status.BAD_ARGUMENT, f"a value is in none of {bins} bins")
    counts: NDArray[np.int64] = tables.sum(axis=0, dtype=np.int64)
    return counts


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
    twice; pair_classes: uint8 [symbols - 1] as in section 4, None without pairs.
    """
    levels = np.ascontiguousarray(levels)
    classes = None if pair_classes is None else pair_classes.astype(np.uint8, copy=False)
    if classes is not None and classes.size != codebook.size - 1:
        raise BlobError(Status.BAD_ARGUMENT, f"{classes.size} classes for a codebook of {codebook.size}")
    lookup = _lookup(codebook.astype(np.int32, copy=False).tobytes(), None if classes is None else classes.tobytes())
    rows, cols = levels.shape
    pairs = classes is not None
    plan = _CPlan(rows, cols, codebook.size, block_rows, block_cols, layout, level_code, run_code, pairs)
    bound = _lib.bsx_block_bound(ctypes.byref(plan))
    if bound == 0:
        raise BlobError(Status.BAD_ARGUMENT, f"no way to code {rows} x {cols} weights in {block_rows} x {block_cols}")
    blocks = -(-rows // block_rows) * -(-cols // block_cols)
    counts = np.empty((blocks, layout.counts), dtype=np.uint32)

    def encode(part: range) -> bytes:
        return _encode_blocks(plan, levels, lookup, part, counts[part.start : part.stop], max(bound, _ENCODE_BYTES))

    return b"".join(_run(encode, _ranges(blocks, levels.size), threads)), counts


@lru_cache(maxsize=1)  # a tensor may be encoded in many parts
def _lookup(codebook: bytes, classes: bytes | None) -> Bytes:
    """The encoder's table for a codebook, which is only read: int32, and uint8 classes."""
    symbols = len(codebook) // 4
    lookup = np.empty(_lib.bsx_lookup_bytes(symbols), dtype=np.uint8)
    status = _lib.bsx_lookup_prepare(codebook, symbols, classes, *_buffer(lookup))
    if status != Status.OK:
        faults = "a level is beyond +-2^24 or there twice, or its classes are not those of section 4"
        raise BlobError(Status.BAD_ARGUMENT, f"codebook of {symbols}: {faults}")
    return lookup


@dataclass
class _Job:
    """A blob, where it goes, and its tables.

    origin: where the first weight of `out` lies in the tensor.
    """

    blob: Bytes
    head: _CHead
    out: Bytes
    item_bytes: int
    origin: int
    tables: _Tables

    def decode(self, blocks: range, scratch: Bytes, flags: int) -> None:
        begin, end = (_first_weight(self.head, block) - self.origin for block in (blocks.start, blocks.stop))
        out = self.out[begin * self.item_bytes : end * self.item_bytes]
        bad = ctypes.c_uint64(0)
        status = _lib.bsx_decode(
            *_buffer(self.blob),
            ctypes.byref(self.head),
            *_buffer(self.tables.workspace()),
            blocks.start,
            len(blocks),
            flags,
            *_buffer(out),
            *_buffer(scratch),
            ctypes.byref(bad),
        )
        if status != Status.OK:
            raise _block_error(Status(status), bad.value, self.head.blocks)


@dataclass
class _Tables:
    """What decoding a blob to a type takes, made when the first of its blocks is decoded."""

    blob: Bytes
    head: _CHead
    out_type: DType
    made: Bytes | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def workspace(self) -> Bytes:
        with self.lock:
            if self.made is None:
                self.made = _prepare(self.blob, self.head, self.out_type)
            return self.made


class _Scratch:
    """Scratch memory of each thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._local = threading.local()

    def mine(self) -> Bytes:
        if not hasattr(self._local, "scratch"):
            self._local.scratch = np.empty(self._size, dtype=np.uint8)
        scratch: Bytes = self._local.scratch
        return scratch


def _open(blob: ReadableBuffer, out: WriteableBuffer, asked: DType | None) -> _Job:
    data = _bytes_of(blob)
    head = _parse(data)
    declared = _head_of(head)
    tables = _Tables(data, head, format.output_type(declared, asked))
    return _job(data, head, declared, out, asked, range(head.blocks), tables)


def _job(
    data: Bytes,
    head: _CHead,
    declared: Head,
    out: WriteableBuffer,
    asked: DType | None,
    blocks: range,
    tables: _Tables,
) -> _Job:
    out_type = format.output_type(declared, asked)
    item_bytes = out_type.storage.itemsize
    origin = _first_weight(head, blocks.start)
    needed = (_first_weight(head, blocks.stop) - origin) * item_bytes
    target = _bytes_of(out)
    if target.size != needed:
        raise BlobError(Status.BAD_ARGUMENT, f"blob: output of {target.size} bytes, expected {needed}")
    if not target.flags.writeable:
        raise BlobError(Status.BAD_ARGUMENT, "blob: output is read-only")
    if head.layout != Layout.RAW:
        format.check_levels_fit(np.array([head.least_level, head.greatest_level], dtype=np.int32), out_type)
    return _Job(data, head, target, item_bytes, origin, tables)


def _parse(blob: Bytes) -> _CHead:
    head = _CHead()
    status = Status(_lib.bsx_parse(*_buffer(blob), ctypes.byref(head)))
    if status is not Status.OK:
        _refuse(blob, status)
    return head


def _refuse(blob: Bytes, status: Status) -> NoReturn:
    """The library gives a number only; the numpy parser finds the same fault and says what is wrong."""
    format.parse(blob, crc32c)
    raise BlobError(status, f"blob: {status.name} (found by libbsx only: please report this file)")


def _prepare(blob: Bytes, head: _CHead, out_type: DType) -> Bytes:
    workspace = np.empty(head.workspace_bytes, dtype=np.uint8)
    status = Status(_lib.bsx_prepare(*_buffer(blob), ctypes.byref(head), out_type, *_buffer(workspace)))
    if status is not Status.OK:
        raise BlobError(status, f"blob: {status.name}: its bytes were changed while it was read")
    return workspace


def _first_weight(head: _CHead, block: int) -> int:
    """Where a block starts in the row-major tensor (section 5); the tensor's end for block = blocks."""
    if block >= head.blocks:
        return int(head.weights)
    group, piece = divmod(block, -(-head.cols // head.block_cols))
    return int(group * head.block_rows * head.cols + piece * head.block_cols)


def _block_error(status: Status, block: int, blocks: int) -> BlobError:
    if status is Status.BLOCK_CRC:
        text = "its CRC-32C is not the stored one: damaged"
    elif status is Status.BAD_STREAM:
        text = "not the codewords of its weights"
    else:
        return BlobError(status, f"blob: {status.name}: its bytes were changed while it was read")
    return BlobError(status, f"blob: block {block} of {blocks}: {text}", block)


def _encode_blocks(
    plan: _CPlan, levels: NDArray[np.int32], lookup: Bytes, blocks: range, counts: NDArray[np.uint32], room: int
) -> bytes:
    """The payload of some blocks; their counts are written into `counts`. room: bytes of the buffer."""
    buffer = np.empty(room, dtype=np.uint8)
    progress = _CProgress()
    parts, done = [], 0
    while done < len(blocks):
        status = _lib.bsx_encode(
            ctypes.byref(plan),
            levels.ctypes.data,
            levels.size,
            *_buffer(lookup),
            blocks.start + done,
            len(blocks) - done,
            *_buffer(buffer),
            counts[done:].ctypes.data,
            counts[done:].size,
            ctypes.byref(progress),
        )
        if status == Status.BAD_CODEBOOK:
            stranger = levels.ravel()[progress.bad_level]
            raise BlobError(Status.BAD_ARGUMENT, f"level {stranger} is not in the codebook of {plan.symbols}")
        if status != Status.OK:
            raise BlobError(Status(status), "encoder: levels, plan and codebook do not fit each other")
        parts.append(buffer[: progress.bytes].tobytes())
        done += progress.blocks
    return b"".join(parts)


def _ranges(blocks: int, weights: int) -> Iterator[range]:
    """Consecutive blocks of about _TASK_WEIGHTS weights together."""
    size = max(1, _TASK_WEIGHTS * blocks // weights)
    for start in range(0, blocks, size):
        yield range(start, min(start + size, blocks))


Task = TypeVar("Task")


def _run(function: Callable[[Task], T], tasks: Iterable[Task], threads: int) -> list[T]:
    """The function's results in the order of the tasks, or the exception of the first task that raises one."""
    if threads <= 1:
        return [function(task) for task in tasks]
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(function, task) for task in tasks]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)


def _bytes_of(data: ReadableBuffer) -> Bytes:
    """The bytes of a contiguous buffer, not copied."""
    return np.frombuffer(memoryview(data).cast("B"), dtype=np.uint8)


def _buffer(array: Bytes) -> tuple[int, int]:
    """Address and size, as the library takes them."""
    return array.__array_interface__["data"][0], array.size  # array.ctypes is slow, for a block's bytes
