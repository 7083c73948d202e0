"""Which weights are held in int8 in the runtime's mode of that name, and why others are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from bsexport.errors import RecipeError
from bsexport.graph.int8 import readings
from bsexport_runtime.int8 import Int8Form, Int8Matrix, lay_out

if TYPE_CHECKING:
    from bsexport.report import TensorReport


LEFT_UNCODED = "left uncoded: "
"""How the reason begins of a tensor that is not in int8 because it is not coded at all."""


@dataclass(frozen=True)
class Int8Report:
    """The int8 form of a packed model. why: of each tensor that is not in int8, by name, the reason."""

    form: Int8Form
    why: dict[str, str]

    @property
    def rescaled(self) -> dict[str, tuple[int, str]]:
        """Of each tensor that has some, by name, how many rows or columns have a scale of their own, and which they
        are: "rows" or "columns"."""
        matrices = ((place.name, place.matrix) for place in self.form.places)
        return {name: (m.rescaled, ("rows", "columns")[m.axis]) for name, m in matrices if m is not None and m.rescaled}

    def to_manifest(self) -> dict[str, Any]:
        """The manifest's field int8 (docs/format.md, section 8), with the reasons."""
        field = self.form.to_manifest()
        for entry in field["tensors"]:
            entry["why"] = self.why.get(entry["name"], "")
        return field


def int8_report(graphs: Iterable[onnx.ModelProto], tensors: Sequence[TensorReport]) -> Int8Report:
    """Lay out the tensors of a packed model. graphs: of its source. Raises RecipeError if none can be int8."""
    read = readings(graphs)
    why: dict[str, str] = {}
    held: list[tuple[str, tuple[int, ...], int, Int8Matrix | None]] = []
    for tensor in tensors:
        reading = f"{LEFT_UNCODED}{tensor.why}" if tensor.why else read[tensor.name]
        matrix = None
        if isinstance(reading, str):
            why[tensor.name] = reading
        else:
            matrix = Int8Matrix(reading.transposed, reading.axis, tensor.wide[reading.axis])
        held.append((tensor.name, tensor.shape, tensor.nbytes, matrix))
    if len(why) == len(tensors):
        example = next((f", such as {name}: {reason}" for name, reason in why.items()), "")
        raise RecipeError(f"--int8: the model has no coded matrix that could be int8{example}; leave it out")
    return Int8Report(lay_out(held), why)
