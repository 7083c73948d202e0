"""Hold a package against its checksums and against the model that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport.errors import SourceError
from bsexport.graph import rewrite
from bsexport.inputs import sample_inputs
from bsexport.pipeline import prune_part, take_part, threshold
from bsexport.recipe import Recipe
from bsexport.source import Source
from bsexport_runtime import codec
from bsexport_runtime.package import Package, align
from bsexport_runtime.session import Session, load

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Comparison:
    """A package against the model it was made from.

    weight_error: the largest |weight - decoded weight| over the coded weights that were not pruned, in units of step/2.
    wrong: one line for every tensor that is not what the model's, pruned and quantised, should be.
    outputs: the largest |output - output of the model| for each output, on made-up inputs; its scale is output_scale,
    the largest |output of the model|. Empty if the graph cannot be run on such, and why_no_outputs says why.
    """

    weight_error: float
    wrong: tuple[str, ...]
    outputs: dict[str, float]
    output_scale: dict[str, float]
    why_no_outputs: str = ""

    def to_json(self) -> dict[str, Any]:
        """Everything but what is wrong."""
        return {key: value for key, value in asdict(self).items() if key != "wrong"}


def compare(path: Path, source: Source, progress: Callable[[str, float], None]) -> Comparison:
    """Compare a sound package with the model that it was made from.

    Raises SourceError if the model has other tensors than the package.
    """
    package = Package(path)
    _check_same_tensors(package, source)
    error, wrong = _compare_weights(package, source, progress)
    try:
        outputs, scale = _compare_outputs(path, source)
        why = ""
    except Exception as failure:  # onnxruntime raises its own kinds; made-up inputs need not fit every graph
        outputs, scale, why = {}, {}, " ".join(str(failure).split())
    return Comparison(error, tuple(wrong), outputs, scale, why)


def _check_same_tensors(package: Package, source: Source) -> None:
    packed = {tensor.name: tensor.shape for tensor in package.tensors}
    model = {weight.name: weight.shape for weight in source.weights}
    if packed != model:
        names = sorted(name for name in packed.keys() | model.keys() if packed.get(name) != model.get(name))
        name = names[0]
        raise SourceError(
            f"{source.name}: is not the model of {package.path}: {len(names)} tensors differ, such as {name} "
            f"({model.get(name)} in the model, {packed.get(name)} in the package); give the model that was packed"
        )


def _compare_weights(
    package: Package, source: Source, progress: Callable[[str, float], None]
) -> tuple[float, list[str]]:
    recipe = Recipe.from_json(package.manifest["recipe"])
    parts = take_part(source, recipe)
    limit = threshold(parts, recipe, progress)
    tensors = {tensor.name: tensor for tensor in package.tensors}
    largest, wrong = 0.0, []
    for part in parts:
        expected, limit = prune_part(part, part.weight.read(), recipe, limit)
        tensor = tensors[part.weight.name]
        decoded = codec.decode(package.blob(tensor)).reshape(-1)
        flat = expected.reshape(-1).astype(decoded.dtype, copy=False)
        if tensor.info["why"]:
            if flat.tobytes() != decoded.tobytes():
                wrong.append(f"tensor {tensor.name}: is stored as it is, but differs from the model's")
            continue
        errors = np.abs(flat.astype(np.float64) - decoded)
        # Beyond step/2 only the rounding of the product and of the stored type may go.
        epsilon = float(np.finfo(part.weight.dtype if part.weight.dtype.kind == "f" else np.float16).eps)
        bad = int(np.count_nonzero(errors > recipe.step / 2 + 2 * epsilon * np.abs(decoded)))
        if bad:
            wrong.append(f"tensor {tensor.name}: {bad} weights are further than step/2 from the model's, pruned")
        largest = max(largest, float(errors.max()) / (recipe.step / 2))
    return largest, wrong


def _compare_outputs(path: Path, source: Source) -> tuple[dict[str, float], dict[str, float]]:
    session = load(path)
    inputs = sample_inputs(session, source.graph.graph)
    names = [output.name for output in session.get_outputs()]
    packed = session.run(names, inputs)
    del session
    dense = dense_session(source).run(names, inputs)
    outputs, scale = {}, {}
    for name, got, expected in zip(names, packed, dense, strict=True):
        outputs[name] = float(np.abs(np.subtract(got, expected, dtype=np.float64)).max())
        scale[name] = float(np.abs(expected).max())
    return outputs, scale


def dense_session(source: Source) -> Session:
    """A session over the model's own weights, neither pruned nor quantised, on the graph that pack makes."""
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for weight in source.weights:
        places[weight.name] = (align(end), weight.size * weight.dtype.itemsize)
        end = sum(places[weight.name])
    arena = np.empty(end, np.uint8)
    for weight in source.weights:
        offset, size = places[weight.name]
        arena[offset : offset + size] = np.ascontiguousarray(weight.read()).reshape(-1).view(np.uint8)
    graph = rewrite.plain(source.graph, places)
    return Session(graph.SerializeToString(), arena, providers=["CPUExecutionProvider"])
