"""pack(): the straight line from a source to a package. Read this first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from bsexport import codebook, layout, prune
from bsexport.code import CODED_DTYPES, CodedTensor, code, code_raw
from bsexport.errors import RecipeError, VerifyError
from bsexport.graph import rewrite
from bsexport.graph.int8 import int8 as rewrite_int8
from bsexport.graph.schema import refusal
from bsexport.graph.skeleton import declared_weights
from bsexport.int8 import int8_report
from bsexport.package import BlobPlaces, PackageWriter
from bsexport.recipe import NO_PROTECTION, Recipe, matches, why_too_small
from bsexport.report import Report, TensorReport
from bsexport.source import Source, Weight
from bsexport_runtime.format import align
from bsexport_runtime.package import CODED_GRAPH, INT8_GRAPH, PLAIN_GRAPH

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]  # stage, share of it that is done


def pack(
    source: Source,
    recipe: Recipe,
    out: Path | None,
    *,
    int8: bool = False,
    force: bool = False,
    threads: int = 1,
    progress: Progress = lambda stage, share: None,
) -> Report:
    """Prune, quantise and code a model, and write the package; with out=None only report what it would be.

    int8: add what the runtime's mode int8 needs.
    Tensors are read one at a time, so that memory stays near the largest tensor. The same source and recipe give the
    same bytes, whatever the number of threads.

    Raises RecipeError, SourceError, OutputError or VerifyError; then nothing was written, and an older package stands.
    """
    parts = take_part(source.weights, recipe)
    limit = threshold(parts, recipe, progress)

    def coded(add_blob: Callable[[bytes], int]) -> tuple[Report, dict[str, bytes]]:
        report = code_parts(source, parts, recipe, limit, add_blob, threads, progress)
        if int8:
            report = replace(report, int8=int8_report(source.graphs.values(), report.tensors))
        graphs = graph_files(source, report)
        return replace(report, graph_bytes=sum(map(len, graphs.values()))), graphs

    if out is None:
        return coded(BlobPlaces().add)[0]
    with PackageWriter(out, force=force) as writer:
        report, graphs = coded(writer.add_blob)
        for path in source.files:
            writer.add_file(path)
        writer.finish(graphs, report.to_manifest())
    return report


@dataclass(frozen=True)
class Part:
    """A weight and what happens to it. why: the reason for leaving it uncoded, "" if it is coded."""

    weight: Weight
    pruned: bool
    why: str


def take_part(weights: Sequence[Weight], recipe: Recipe) -> list[Part]:
    """Decide for every tensor whether it is pruned and coded. Raises RecipeError if a glob matches no tensor."""
    for option, globs in (("--keep", recipe.keep), ("--protect", recipe.protect)):
        for glob in globs:
            nothing = option == "--protect" and glob == NO_PROTECTION
            if not nothing and not any(matches([glob], weight.names) for weight in weights):
                names = ", ".join(weight.name for weight in weights[:3])
                raise RecipeError(f"{option} {glob!r} matches no tensor; the names are such as {names}")
    parts = []
    for weight in weights:
        why = why_uncoded(weight, recipe)
        pruned = recipe.prune > 0 and not why and not recipe.protects(weight.names, head=weight.head)
        parts.append(Part(weight, pruned, why))
    return parts


def why_uncoded(weight: Weight, recipe: Recipe) -> str:
    """Why a tensor is left as it is, or "" if it is to be coded."""
    if weight.dtype.name not in CODED_DTYPES:
        return f"{weight.dtype.name}, not a floating-point weight"
    if recipe.keeps(weight.names):
        return "kept by --keep"
    if weight.constant:
        return "made by the model's code, not trained"
    return why_too_small(weight.shape)


def threshold(parts: list[Part], recipe: Recipe, progress: Progress) -> prune.Threshold:
    """The global threshold of the tensors to prune; the other scopes have none."""
    tensors = [part.weight for part in parts if part.pruned]
    if recipe.scope != "global" or not tensors:
        return prune.NOTHING
    done = counter("pruning", 2 * sum(weight.size for weight in tensors), progress)

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
    if recipe.scope == "row" and weights.shape[0] > 1:  # a single row is a tensor, which takes less memory
        return prune.prune_rows(name, weights, recipe.prune), limit
    own = limit if recipe.scope == "global" else prune.threshold([(name, lambda: weights)], recipe.prune)
    pruned, ties = prune.prune(weights, own)
    return pruned, replace(limit, ties=limit.ties - ties) if recipe.scope == "global" else limit


def code_parts(
    source: Source,
    parts: list[Part],
    recipe: Recipe,
    limit: prune.Threshold,
    add_blob: Callable[[bytes], int],
    threads: int,
    progress: Progress,
) -> Report:
    """Prune and code one tensor after the other, handing each blob to `add_blob`, which returns its offset.

    Raises RecipeError if the step is so large that nothing is left of the model.
    """
    tensors: list[TensorReport] = []
    histogram = codebook.EMPTY
    left, arena_end = limit, 0
    limits = layout.allowed(recipe.layout, recipe.family, recipe.order)
    done = counter("coding", sum(part.weight.size for part in parts), progress)
    with ThreadPoolExecutor(threads) as pool:
        for part in parts:
            coded, left = code_part(part, recipe, limits, left, pool, threads)
            offset, arena_offset = add_blob(coded.blob), align(arena_end)
            tensors.append(TensorReport.of(part.weight, coded, offset, arena_offset, pruned=part.pruned))
            arena_end = arena_offset + tensors[-1].nbytes
            if coded.symbols is not None:
                histogram = codebook.merge([histogram, coded.symbols])
            done(part.weight.size)
    check_not_all_zero(tensors, recipe)
    paper_bits = layout.code_bits(codebook.rank(histogram).counts, 0)
    return Report(source.name, source.task, recipe, limit, tuple(tensors), source.inline, paper_bits)


def code_part(
    part: Part,
    recipe: Recipe,
    limits: layout.Allowed,
    limit: prune.Threshold,
    pool: ThreadPoolExecutor,
    threads: int,
) -> tuple[CodedTensor, prune.Threshold]:
    """Read a tensor, prune and code it, or take it as it is; and the global threshold with the ties that are left.

    The weights go when this returns, before the next tensor's come.
    """
    weights, left = prune_part(part, part.weight.read(), recipe, limit)
    if part.why:
        return code_raw(part.weight.name, weights, part.why), left
    return code(part.weight.name, weights, recipe.step, limits, pool, threads), left


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


def graph_files(source: Source, report: Report) -> dict[str, bytes]:
    """The content of the graphs of the package, by file name.

    Raises VerifyError if onnx's checker refuses the coded one.
    """
    graphs: dict[str, onnx.ModelProto] = {}
    for prefix, graph in source.graphs.items():
        declared = {tensor.name for tensor in declared_weights(graph)}
        tensors = [tensor for tensor in report.tensors if tensor.name in declared]
        coded = rewrite.coded(graph, {tensor.name: tensor.place for tensor in tensors})
        plain = rewrite.plain(graph, {tensor.name: (tensor.arena_offset, tensor.nbytes) for tensor in tensors})
        if (why := refusal(coded, plain)) is not None:
            raise VerifyError(f"{source.name}: onnx refuses the coded graph: {why}; report this, with the model")
        graphs |= {prefix + CODED_GRAPH: coded, prefix + PLAIN_GRAPH: plain}
        if report.int8:
            graphs[prefix + INT8_GRAPH] = rewrite_int8(graph, report.int8.form, report.recipe.step)
    return {name: graph.SerializeToString(deterministic=True) for name, graph in graphs.items()}


def counter(stage: str, total: int, progress: Progress) -> Callable[[int], None]:
    """A function that is told how many more weights of the total are done, and shows the share."""
    count = 0

    def done(weights: int) -> None:
        nonlocal count
        count += weights
        progress(stage, count / max(total, 1))

    return done
