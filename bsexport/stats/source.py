"""Where stats finds weights: a model directory, an .onnx file, a hub id or a package."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bsexport.graph.heads import is_head
from bsexport.recipe import DEFAULT_STEP, Recipe
from bsexport.source import Weight, default_name, is_file, is_onnx, open_source
from bsexport.train.record import trained_step
from bsexport.unpack import dtype_of, read_part
from bsexport_runtime.package import MANIFEST, Package


@dataclass(frozen=True)
class Weights:
    """The weights of a model, and the recipe that it was packed with, or else what pack would take by default."""

    name: str
    weights: tuple[Weight, ...]
    recipe: Recipe


def open_weights(model: str, *, task: str | None = None, trust_remote_code: bool = False) -> Weights:
    """The weights of what a user named; they are read later, one by one.

    Of a Hugging Face model without a task they are the tensors of its checkpoint, which takes no export, and so works
    for models that cannot be packed too. With a task they are those of the graph that pack would make, which differ
    where the checkpoint holds tensors that the task does not use. Of a package they are the decoded ones.
    Raises SourceError, ExportError or PackageError.
    """
    path = Path(model)
    is_one_file = is_file(path)
    if is_file(path / MANIFEST):
        return _of_package(path)
    recipe = Recipe(step=trained_step(path) or DEFAULT_STEP)
    if task is not None or is_one_file or is_onnx(path):
        source = open_source(model, task=task, trust_remote_code=trust_remote_code)
        return Weights(source.name, source.weights, recipe)
    from bsexport.checkpoint import Checkpoint, locate

    return Weights(default_name(model), Checkpoint.open(locate(path)).weights(), recipe)


def _of_package(path: Path) -> Weights:
    package = Package(path)
    weights = tuple(
        Weight(
            tensor.name,
            tensor.shape,
            dtype_of(tensor),
            partial(read_part, package, tensor),
            tuple(tensor.info["ties"]),
            is_head(tensor.name),
            tensor.info["constant"],
        )
        for tensor in package.tensors
    )
    recipe = Recipe.from_json(package.manifest["recipe"])
    return Weights(default_name(str(path)), weights, replace(recipe, prune=0.0))
