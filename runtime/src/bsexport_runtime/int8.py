"""The int8 form of a package's weights: its part of the manifest and its arithmetic (docs/format.md, section 8)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport_runtime.fields import natural, printable, refuse, typed
from bsexport_runtime.format import DType, Head, Layout, align

LARGEST = 127  # the largest magnitude of an int8 weight
SCALE_BYTES = 4


@dataclass(frozen=True)
class Int8Matrix:
    """How a float32 matrix [rows, columns] is held in int8.

    transposed: it lies as [columns, rows]. axis: 0 if each of its rows may have a scale of its own, 1 if each column.
    rescaled: how many of them have one, since a level in them is beyond +-LARGEST; the others have the step.
    """

    transposed: bool
    axis: int
    rescaled: int


@dataclass(frozen=True)
class Int8Place:
    """Where a tensor lies in the int8 arena, in bytes; matrix: None if it lies there as it is decoded.

    The scales of a matrix of which a part is rescaled, float32 [rows] or [columns], follow at `scales_offset`.
    """

    name: str
    shape: tuple[int, ...]
    arena_offset: int
    decoded_bytes: int
    matrix: Int8Matrix | None

    @property
    def nbytes(self) -> int:
        """Of the weights, without scales."""
        return self.decoded_bytes if self.matrix is None else math.prod(self.shape)

    @property
    def scales(self) -> int:
        """How many scales follow."""
        return self.shape[self.matrix.axis] if self.matrix is not None and self.matrix.rescaled else 0

    @property
    def scales_offset(self) -> int:
        return align(self.arena_offset + self.nbytes)

    @property
    def end(self) -> int:
        """Where its bytes end, scales included."""
        if self.scales:
            return self.scales_offset + SCALE_BYTES * self.scales
        return self.arena_offset + self.nbytes


@dataclass(frozen=True)
class Int8Form:
    """All places, in the order of the tensors, and the size of the arena in bytes."""

    places: tuple[Int8Place, ...]
    arena_bytes: int

    def to_manifest(self) -> dict[str, Any]:
        """The manifest's field int8, which `read_form` reads."""
        return {"arena_bytes": self.arena_bytes, "tensors": [_entry(place) for place in self.places]}


def lay_out(tensors: Iterable[tuple[str, tuple[int, ...], int, Int8Matrix | None]]) -> Int8Form:
    """The form of tensors that are given by name, shape, decoded bytes, and how they are held."""
    places: list[Int8Place] = []
    end = 0
    for name, shape, decoded_bytes, matrix in tensors:
        places.append(Int8Place(name, shape, align(end), decoded_bytes, matrix))
        end = places[-1].end
    return Int8Form(tuple(places), end)


def read_form(field: dict[str, Any], tensors: list[tuple[str, Head]], where: Path) -> Int8Form:
    """The form that a manifest declares for these tensors, whose heads were checked. where: the manifest.

    Raises PackageError if it is not what follows from the heads.
    """
    entries = typed(field, "tensors", list, where)
    if len(entries) != len(tensors):
        refuse(where, f"int8 has {len(entries)} tensors, expected {len(tensors)}, as in the package")
    form = lay_out(
        (name, head.shape, head.nbytes, _matrix(entry, name, head, where))
        for entry, (name, head) in zip(entries, tensors, strict=True)
    )
    for entry, place in zip(entries, form.places, strict=True):
        if (found := natural(entry, "arena_offset", where)) != place.arena_offset:
            tensor = f"int8: tensor {printable(place.name)}"
            refuse(where, f"{tensor} has arena_offset {found}, expected {place.arena_offset}")
    if (found := natural(field, "arena_bytes", where)) != form.arena_bytes:
        refuse(where, f"int8: arena_bytes is {found}, expected {form.arena_bytes}")
    return form


def scales(largest: npt.NDArray[np.int32], step: float) -> npt.NDArray[np.float32]:
    """The scale of each row (or column) by the largest magnitude of its levels: float32 [rows].

    That is the step, so that the weights are exact; beyond LARGEST what takes the largest level to +-LARGEST.
    """
    own = (largest.astype(np.float64) * step / LARGEST).astype(np.float32)
    return np.where(largest > LARGEST, own, np.float32(step))


def rescale(levels: npt.NDArray[np.int32], largest: npt.NDArray[np.int32]) -> npt.NDArray[np.int8]:
    """The int8 weights of levels [rows, columns]: level * LARGEST / largest, rounded to the nearest, halves away from
    zero, where `largest`, which broadcasts to them, is beyond LARGEST; the level itself elsewhere."""
    wide = np.maximum(largest, LARGEST).astype(np.int64)
    magnitudes = (2 * LARGEST * np.abs(levels.astype(np.int64)) + wide) // (2 * wide)
    signed: npt.NDArray[np.int8] = (np.sign(levels) * magnitudes).astype(np.int8)
    return signed


def _entry(place: Int8Place) -> dict[str, Any]:
    entry = {"name": place.name, "arena_offset": place.arena_offset, "int8": place.matrix is not None}
    return entry if place.matrix is None else entry | vars(place.matrix)


def _matrix(entry: Any, name: str, head: Head, where: Path) -> Int8Matrix | None:
    tensor = f"int8: tensor {printable(name)}"
    if not isinstance(entry, dict) or entry.get("name") != name:
        refuse(where, f"{tensor} is not where it stands in the package, expected the same tensors in the same order")
    if not typed(entry, "int8", bool, where):
        return None
    if head.dtype is not DType.FLOAT32 or head.layout is Layout.RAW or len(head.shape) != 2:
        found = f"{head.layout.name} {head.dtype.name.lower()} of {len(head.shape)} dimensions"
        refuse(where, f"{tensor} is {found}, expected a coded float32 matrix")
    axis = natural(entry, "axis", where)
    if axis > 1:
        refuse(where, f"{tensor} has axis {axis}, expected 0 or 1")
    rescaled = natural(entry, "rescaled", where)
    if rescaled > head.shape[axis]:
        refuse(where, f"{tensor} has rescaled {rescaled}, expected at most {head.shape[axis]}")
    return Int8Matrix(typed(entry, "transposed", bool, where), axis, rescaled)
