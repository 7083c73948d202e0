"""Tensors in slabs, by several threads: what memory packing takes grows with neither the model nor its tensors."""

from __future__ import annotations

import ctypes
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeVar

from bsexport_runtime import format

SLAB = 1 << 18  # weights that one thread takes at a time, about: their arrays stay in the cache
AHEAD = 2  # slabs of each thread that may be done before what came out of an earlier one is taken
KEPT_BYTES = 1 << 25
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h

In = TypeVar("In")
Out = TypeVar("Out")


class Each(Protocol):
    """Applies a function to items and gives the results in their order, as `map` does."""

    def __call__(self, function: Callable[[In], Out], items: Iterable[In], /) -> Iterable[Out]: ...


@dataclass(frozen=True)
class Slab:
    """Consecutive whole blocks of a tensor (docs/format.md, section 5): whole rows, or a piece of one.

    begin, end: which weights of the row-major tensor. shape: their rows and columns. row, col: where they start.
    """

    begin: int
    end: int
    shape: tuple[int, int]
    row: int
    col: int


def slabs(shape: Sequence[int], grid: tuple[int, int] | None = None) -> list[Slab]:
    """A tensor in slabs, in the order of its weights.

    grid: rows and columns of its blocks, if they are not those that a writer takes.
    """
    rows, cols = shape[0], math.prod(shape[1:])
    block_rows, block_cols = format.geometry(shape) if grid is None else grid
    if block_cols == cols:
        height = max(1, SLAB // (block_rows * cols)) * block_rows
        ends = ((row, min(row + height, rows)) for row in range(0, rows, height))
        return [Slab(top * cols, bottom * cols, (bottom - top, cols), top, 0) for top, bottom in ends]
    width = max(1, SLAB // block_cols) * block_cols
    pieces = [(left, min(left + width, cols)) for left in range(0, cols, width)]
    return [
        Slab(row * cols + left, row * cols + right, (1, right - left), row, left)
        for row in range(rows)
        for left, right in pieces
    ]


def _keep_freed_memory() -> None:
    """Let glibc keep what one slab's arrays took for the next slab's, up to KEPT_BYTES a thread, in this process.

    By default it hands memory back and takes it anew for every slab, which can cost as much as all the work on it.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)


class Workers:
    """Threads that work on slabs; a context manager. One thread works in the caller's."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._ahead = threads * AHEAD

    def __enter__(self) -> Workers:
        _keep_freed_memory()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def each(self, function: Callable[[In], Out], items: Iterable[In], /) -> Iterator[Out]:
        """The results in the order of the items, as they are asked for; not many are made before that.

        An exception comes out in the place of its result.
        """
        if self._pool is None:
            yield from map(function, items)
            return
        waiting: deque[Future[Out]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(function, item))
                if len(waiting) > self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
