"""Decode all weights of a package into one arena, as float32 or in the int8 form."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport_runtime import codec
from bsexport_runtime.errors import BlobError, BsexportRuntimeError, PackageError
from bsexport_runtime.fields import printable, refuse
from bsexport_runtime.format import DType
from bsexport_runtime.int8 import LARGEST, Int8Form, Int8Matrix, Int8Place, rescale, scales
from bsexport_runtime.package import MANIFEST, Package, Tensor

GROUP_BYTES = 16 << 20  # blobs decoded before their file pages are let go; the numpy decoder wants many at once
PANEL_WEIGHTS = 1 << 18  # of a matrix that are decoded aside before they are transposed or rescaled
PANEL_THREADS = 2  # that `panel_bytes` counts with
RESCALED_BYTES = 40  # of memory for each weight of a panel that is rescaled; one that is only transposed takes 1
TILE_COLUMNS = 256  # a tile of a panel and where it goes to stay in the nearest caches

Arena = npt.NDArray[np.uint8]


def decode_arena(package: Package, threads: int) -> Arena:
    """All tensors of the package, decoded to their places: uint8 [package.arena_bytes], read-only.

    Raises PackageError if a block is damaged, BsexportRuntimeError if there is too little memory.
    """
    arena = _allocate(package, package.arena_bytes, "decoded")
    places = [arena[tensor.arena_offset :][: package.head(tensor).nbytes] for tensor in package.tensors]
    _decode(package, list(zip(package.tensors, places, strict=True)), None, threads)
    arena.flags.writeable = False
    return arena


def decode_int8_arena(package: Package, threads: int) -> Arena:
    """All tensors of a package that has an int8 form, at their places in it: uint8 [arena_bytes], read-only.

    Raises as `decode_arena` does, and PackageError if the levels are not what the form declares.
    """
    assert package.int8 is not None
    arena = _allocate(package, package.int8.arena_bytes, "int8")
    own: list[tuple[Tensor, Arena]] = []
    levels: list[tuple[Tensor, Arena]] = []
    panels: list[Callable[[], None]] = []
    for tensor, place in zip(package.tensors, package.int8.places, strict=True):
        out = arena[place.arena_offset : place.end]
        if (matrix := place.matrix) is None:
            own.append((tensor, out))
        elif matrix.transposed or matrix.rescaled:
            panels.append(_matrix_job(package, tensor, place, matrix, out))
        else:
            levels.append((tensor, out))
    _decode(package, own, None, threads)
    _decode(package, levels, DType.INT8, threads)
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda job: job(), panels):
            pass
    arena.flags.writeable = False
    return arena


def panel_bytes(form: Int8Form) -> int:
    """What `decode_int8_arena` takes beside the arena while it decodes."""
    aside = [
        min(PANEL_WEIGHTS, place.nbytes) * (RESCALED_BYTES if place.matrix.rescaled else 1)
        for place in form.places
        if place.matrix is not None and (place.matrix.transposed or place.matrix.rescaled)
    ]
    return sum(sorted(aside)[-PANEL_THREADS:])


def _decode(package: Package, placed: Sequence[tuple[Tensor, Arena]], out_type: DType | None, threads: int) -> None:
    """Decode tensors as they are, or their levels, each to its place."""
    for group in _groups(placed):
        blobs = [package.blob(tensor) for tensor, _ in group]
        try:
            codec.decode_into(blobs, [out for _, out in group], out_type=out_type, threads=threads)
        except BlobError as error:
            raise _locate(package, [tensor for tensor, _ in group], out_type, error) from error
        for tensor, _ in group:
            package.release(tensor)


def _matrix_job(
    package: Package, tensor: Tensor, place: Int8Place, matrix: Int8Matrix, out: Arena
) -> Callable[[], None]:
    """What decodes a matrix to its place, a panel of rows after the other, with its scales if it has any."""

    def job() -> None:
        try:
            if matrix.rescaled:
                _rescale_matrix(package, tensor, place, matrix, out)
            else:
                for start, panel in _panels(package, tensor, DType.INT8):
                    _put(panel, start, place, matrix, out)
        except BlobError as error:
            raise package.damaged(tensor, error) from error
        package.release(tensor)

    return job


def _rescale_matrix(package: Package, tensor: Tensor, place: Int8Place, matrix: Int8Matrix, out: Arena) -> None:
    """Decode a matrix in which rows (or columns) have scales of their own, and write the scales."""
    largest = np.zeros(tensor.shape[matrix.axis], np.int32)
    for start, panel in _panels(package, tensor, DType.INT32):
        part = largest[start : start + len(panel)] if matrix.axis == 0 else largest
        for bound in (panel.max(1 - matrix.axis), -panel.min(1 - matrix.axis)):
            np.maximum(part, bound, out=part)
    if (found := int(np.count_nonzero(largest > LARGEST))) != matrix.rescaled:
        declared = f"int8: tensor {printable(tensor.name)} has rescaled {matrix.rescaled}"
        refuse(package.path / MANIFEST, f"{declared}, expected {found}")
    out[place.scales_offset - place.arena_offset :] = scales(largest, package.head(tensor).step).view(np.uint8)
    for start, panel in _panels(package, tensor, DType.INT32):
        along = largest[start : start + len(panel), None] if matrix.axis == 0 else largest
        _put(rescale(panel, along), start, place, matrix, out)


def _panels(package: Package, tensor: Tensor, out_type: DType) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """The levels of a matrix, whole blocks of rows at a time, each with the number of its first row."""
    blob, head = package.blob(tensor), package.head(tensor)
    rows = max(1, PANEL_WEIGHTS // (head.cols * head.block_rows)) * head.block_rows
    for start in range(0, head.rows, rows):
        yield start, codec.decode_rows(blob, start, min(start + rows, head.rows), out_type=out_type)


def _put(panel: npt.NDArray[np.int8], start: int, place: Int8Place, matrix: Int8Matrix, out: Arena) -> None:
    """Write int8 rows to their place in a matrix, as they are or transposed."""
    rows, columns = place.shape
    whole = out[: place.nbytes].view(np.int8)
    if not matrix.transposed:
        whole.reshape(rows, columns)[start : start + len(panel)] = panel
        return
    there = whole.reshape(columns, rows)[:, start : start + len(panel)]
    for column in range(0, columns, TILE_COLUMNS):
        there[column : column + TILE_COLUMNS] = panel[:, column : column + TILE_COLUMNS].T


def _locate(package: Package, group: Sequence[Tensor], out_type: DType | None, error: BlobError) -> PackageError:
    """The damaged tensor of a group that did not decode; the group is small, so it is decoded again one by one."""
    for tensor in group:
        try:
            codec.decode(package.blob(tensor), out_type=out_type)
        except BlobError as found:
            return package.damaged(tensor, found)
    return PackageError(f"{package.path}: {error}; the file changes while it is read")


def _groups(placed: Sequence[tuple[Tensor, Arena]]) -> Iterator[list[tuple[Tensor, Arena]]]:
    group: list[tuple[Tensor, Arena]] = []
    size = 0
    for tensor, out in placed:
        if group and size + tensor.nbytes > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append((tensor, out))
        size += tensor.nbytes
    if group:
        yield group


def _allocate(package: Package, size: int, form: str) -> Arena:
    """Fresh zeros on huge pages where the system has them: page faults would cost more than decoding."""
    if size == 0:
        return np.empty(0, np.uint8)
    # Shared anonymous memory, which is what mmap gives unless told otherwise, has no huge pages.
    private = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        memory = mmap.mmap(-1, size, **private)
    except (OSError, OverflowError) as error:
        needed = f"its {form} weights take {size} bytes of memory"
        raise BsexportRuntimeError(f"{package.path}: {needed}: {os.strerror(errno.ENOMEM)}") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)
