"""pack(): the straight line from a source to a package. Read this first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from bsexport import layout, prune
from bsexport.code import code, code_raw
from bsexport.errors import RecipeError
from bsexport.graph import rewrite
from bsexport.package import BlobPlaces, PackageWriter
from bsexport.recipe import Recipe
from bsexport.report import Report, TensorReport
from bsexport.source import Source, Weight
from bsexport_runtime.package import align

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]  # stage, share of it that is done

FEWEST_WEIGHTS = 1024  # smaller tensors cost more side information than they save
CODED_DTYPES = frozenset({"float16", "bfloat16", "float32", "float64"})


def pack(
    source: Source,
    recipe: Recipe,
    out: Path | None,
    *,
    force: bool = False,
    threads: int = 1,
    progress: Progress = lambda stage, share: None,
) -> Report:
    """Prune, quantise and code a model, and write the package; with out=None only report what it would be.

    Tensors are read one at a time, so that memory stays near the largest tensor. The same source and recipe give the
    same bytes, whatever the number of threads.

    Raises RecipeError, SourceError, OutputError or VerifyError; then nothing was written, and an older package stands.
    """
    parts = take_part(source, recipe)
    limit = threshold(parts, recipe, progress)

    def coded(add_blob: Callable[[bytes], int]) -> Report:
        tensors = tuple(code_parts(parts, recipe, limit, add_blob, threads, progress))
        check_not_all_zero(tensors, recipe)
        return Report(source.name, source.task, recipe, limit, tensors, source.inline)

    if out is None:
        return coded(BlobPlaces().add)
    with PackageWriter(out, force=force) as writer:
        report = coded(writer.add_blob)
        for path in source.files:
            writer.add_file(path)
        graph_bytes = writer.finish(
            coded=rewrite.coded(source.graph, {tensor.name: tensor.place for tensor in report.tensors}),
            plain=rewrite.plain(
                source.graph, {tensor.name: (tensor.arena_offset, tensor.nbytes) for tensor in report.tensors}
            ),
            manifest=report.to_manifest(),
        )
    return replace(report, graph_bytes=graph_bytes)


@dataclass(frozen=True)
class Part:
    """A weight and what happens to it. why: the reason for leaving it uncoded, "" if it is coded."""

    weight: Weight
    pruned: bool
    why: str


def take_part(source: Source, recipe: Recipe) -> list[Part]:
    """Decide for every tensor whether it is pruned and coded. Raises RecipeError if a glob matches no tensor."""
    for option, globs in (("--keep", recipe.keep), ("--protect", recipe.protect)):
        for glob in globs:
            only = replace(recipe, keep=(glob,))
            if glob != "none" and not any(only.keeps(weight.name) for weight in source.weights):
                names = ", ".join(weight.name for weight in source.weights[:3])
                raise RecipeError(f"{option} {glob!r} matches no tensor; the names are such as {names}")
    parts = []
    for weight in source.weights:
        why = why_uncoded(weight, recipe)
        pruned = recipe.prune > 0 and not why and not recipe.protects(weight.name, head=weight.head)
        parts.append(Part(weight, pruned, why))
    return parts


def why_uncoded(weight: Weight, recipe: Recipe) -> str:
    """Why a tensor is left as it is, or "" if it is to be coded."""
    if weight.dtype.name not in CODED_DTYPES:
        return f"{weight.dtype.name}, not a floating-point weight"
    if recipe.keeps(weight.name):
        return "kept by --keep"
    if weight.constant:
        return "made by the model's code, not trained"
    if sum(dim > 1 for dim in weight.shape) < 2:
        return "1-D"
    if weight.size < FEWEST_WEIGHTS:
        return f"fewer than {FEWEST_WEIGHTS} weights"
    return ""


def threshold(parts: list[Part], recipe: Recipe, progress: Progress) -> prune.Threshold:
    """The global threshold of the tensors to prune; the other scopes have none."""
    tensors = [part.weight for part in parts if part.pruned]
    if recipe.scope != "global" or not tensors:
        return prune.NOTHING
    done = _counter("pruning", 2 * sum(weight.size for weight in tensors), progress)

    def reader(weight: Weight) -> Callable[[], Array]:
        def read() -> Array:
            done(weight.size)
            return weight.read()

        return read

    return prune.threshold([(weight.name, reader(weight)) for weight in tensors], recipe.prune)


def prune_part(part: Part, weights: Array, recipe: Recipe, limit: prune.Threshold) -> tuple[Array, prune.Threshold]:
    """The tensor pruned as the recipe says, and the global threshold with the ties that are left."""
    if not part.pruned:
        return weights, limit
    name = part.weight.name
    if recipe.scope == "row":
        return prune.prune_rows(name, weights, recipe.prune), limit
    own = limit if recipe.scope == "global" else prune.threshold([(name, lambda: weights)], recipe.prune)
    pruned, ties = prune.prune(weights, own)
    return pruned, replace(limit, ties=limit.ties - ties) if recipe.scope == "global" else limit


def code_parts(
    parts: list[Part],
    recipe: Recipe,
    limit: prune.Threshold,
    add_blob: Callable[[bytes], int],
    threads: int,
    progress: Progress,
) -> Iterator[TensorReport]:
    """Prune and code one tensor after the other and hand each blob to `add_blob`, which returns its offset."""
    left, arena_end = limit, 0
    limits = layout.allowed(recipe.layout, recipe.family, recipe.order)
    done = _counter("coding", sum(part.weight.size for part in parts), progress)
    with ThreadPoolExecutor(threads) as pool:
        for part in parts:
            weight = part.weight
            weights, left = prune_part(part, weight.read(), recipe, left)
            if part.why:
                coded = code_raw(weight.name, weights, part.why)
            else:
                coded = code(weight.name, weights, recipe.step, limits, pool, threads)
            yield TensorReport.of(weight, coded, add_blob(coded.blob), align(arena_end), pruned=part.pruned)
            arena_end = align(arena_end) + weights.nbytes
            done(weight.size)


def check_not_all_zero(tensors: Sequence[TensorReport], recipe: Recipe) -> None:
    """Raise RecipeError if the step is so large that nothing is left of the model."""
    coded = [tensor for tensor in tensors if not tensor.why]
    if not coded or any(tensor.zeros < tensor.weights for tensor in coded):
        return
    most = max(coded, key=lambda tensor: tensor.largest)
    if most.largest > 0:
        raise RecipeError(
            f"step {recipe.step:g} turns every weight into zero: the largest is {most.largest:g}, "
            f"in tensor {most.name}; choose a step below {2 * most.largest:g}"
        )


def _counter(stage: str, total: int, progress: Progress) -> Callable[[int], None]:
    count = 0

    def done(weights: int) -> None:
        nonlocal count
        count += weights
        progress(stage, count / max(total, 1))

    return done
