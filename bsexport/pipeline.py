"""pack(): the straight line from a source to a package. Read this first."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby, repeat
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bsexport import codebook, layout, prune
from bsexport.code import CODED_DTYPES, Sink, Tensor, code, code_raw
from bsexport.errors import RecipeError, VerifyError
from bsexport.graph import rewrite
from bsexport.graph.int8 import int8 as rewrite_int8
from bsexport.graph.schema import refusal
from bsexport.graph.skeleton import declared_weights
from bsexport.int8 import int8_report
from bsexport.package import Blobs, PackageWriter
from bsexport.recipe import NO_PROTECTION, Recipe, fields_of, matches, why_too_small
from bsexport.record import versions
from bsexport.report import Report, TensorReport
from bsexport.slabs import Each, Slab, Workers, slabs
from bsexport.source import Source, Weight
from bsexport_runtime.format import align
from bsexport_runtime.package import CODED_GRAPH, INT8_GRAPH, PLAIN_GRAPH, VERSION, WEIGHTS

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]  # stage, share of it that is done


def pack(
    source: Source,
    recipe: Recipe,
    out: Path | None,
    *,
    int8: bool = False,
    force: bool = False,
    resume: bool = False,
    threads: int = 1,
    progress: Progress = lambda stage, share: None,
) -> Report:
    """Prune, quantise and code a model, and write the package; with out=None only report what it would be.

    int8: add what the runtime's mode int8 needs. force, resume: see `package.PackageWriter`.
    Tensors are read in slabs, see `slabs`, so that memory grows with neither the model nor its largest tensor: by some
    20 MB a thread, and `code.HELD_BYTES`. The same source and recipe give the same bytes, whatever the number of
    threads, and however often a run was killed and resumed.

    Raises RecipeError, SourceError, OutputError, ResumeError or VerifyError; then nothing was written, and an older
    package stands.
    """
    parts = take_part(source.weights, recipe)
    with Workers(threads) as workers:
        if out is None:
            with tempfile.TemporaryDirectory(prefix="bsexport-") as folder:
                place = Path(folder) / WEIGHTS
                with Blobs(place, place, keep=False) as blobs:
                    limit = threshold(parts, recipe, workers.each, progress)
                    packed = list(code_parts(parts, recipe, limit, blobs, workers.each, progress))
            return _report(source, recipe, limit, packed, int8=int8)[0]
        with PackageWriter(out, force=force, resume=resume) as writer:
            writer.begin(_decisive(source, recipe, int8=int8))
            limit, packed = _pack_tensors(writer, parts, recipe, workers.each, progress)
            report, graphs = _report(source, recipe, limit, packed, int8=int8)
            for path in source.files:
                writer.add_file(path)
            writer.finish(graphs, report.to_manifest())
    return report


def _pack_tensors(
    writer: PackageWriter, parts: list[Part], recipe: Recipe, each: Each, progress: Progress
) -> tuple[prune.Threshold, list[Packed]]:
    """Write the blobs that an earlier run did not, and keep what a later one needs."""
    earlier = writer.earlier()
    if not earlier:
        earlier = [{"threshold": asdict(threshold(parts, recipe, each, progress))}]
        writer.keep(earlier[0])
    limit = prune.Threshold(**earlier[0]["threshold"])
    packed = [Packed.from_json(line) for line in earlier[1:]]
    end = packed[-1].tensor.offset + packed[-1].tensor.blob_bytes if packed else 0
    with writer.blobs(end) as blobs:
        for one in code_parts(parts, recipe, limit, blobs, each, progress, packed):
            writer.keep(one.to_json())
            packed.append(one)
    return limit, packed


def _decisive(source: Source, recipe: Recipe, *, int8: bool) -> dict[str, Any]:
    """What decides the bytes of a package. Weights are known by their files' sizes and times of change."""
    weights = [(weight.name, weight.shape, str(weight.dtype), weight.ties, weight.head) for weight in source.weights]
    graphs = b"".join(graph.SerializeToString(deterministic=True) for graph in source.graphs.values())
    stores = {path.name: path.stat() for path in source.stores}
    return {
        "model": {
            "name": source.name,
            "task": source.task,
            "graph": hashlib.sha256(graphs + json.dumps(weights).encode()).hexdigest(),
            "files": {
                name: f"{found.st_size} bytes, changed at {found.st_mtime_ns} ns" for name, found in stores.items()
            },
        },
        "recipe": recipe.to_json(),
        "int8": int8,
        "versions": {**versions(("bsexport-runtime", "numpy", "onnx")), "format": VERSION},
    }


def _report(
    source: Source, recipe: Recipe, limit: prune.Threshold, packed: list[Packed], *, int8: bool
) -> tuple[Report, dict[str, bytes]]:
    """What packing did, and the content of the graphs. Raises RecipeError if nothing is left of the model."""
    tensors = tuple(one.tensor for one in packed)
    check_not_all_zero(tensors, recipe)
    histogram = codebook.merge([codebook.EMPTY, *(one.symbols for one in packed if one.symbols is not None)])
    paper_bits = layout.code_bits(codebook.rank(histogram).counts, 0)
    report = Report(source.name, source.task, recipe, limit, tensors, source.inline, paper_bits)
    if int8:
        report = replace(report, int8=int8_report(source.graphs.values(), report.tensors))
    graphs = graph_files(source, report)
    return replace(report, graph_bytes=sum(map(len, graphs.values()))), graphs


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


def threshold(parts: list[Part], recipe: Recipe, each: Each, progress: Progress) -> prune.Threshold:
    """The global threshold of the tensors to prune; the other scopes have none."""
    pruned = [part.weight for part in parts if part.pruned]
    if recipe.scope != "global" or not pruned:
        return prune.NOTHING
    reads = [read for weight in pruned for read in _reads(weight, slabs(weight.shape))]
    return prune.threshold(reads, recipe.prune, counting(each, counter("pruning", 2 * len(reads), progress)))


def _reads(weight: Weight, among: Iterable[Slab]) -> list[tuple[str, Callable[[], Array]]]:
    return [(weight.name, partial(weight.read_part, slab.begin, slab.end)) for slab in among]


class Pruned:
    """A tensor as the recipe prunes it, slab by slab.

    limit: the global threshold, with the ties that earlier tensors left. grid: see `slabs`.
    left: that threshold, with the ties that this one leaves.
    """

    def __init__(
        self, part: Part, recipe: Recipe, limit: prune.Threshold, each: Each, grid: tuple[int, int] | None = None
    ) -> None:
        self.part, self.recipe, self.left = part, recipe, limit
        self.slabs = slabs(part.weight.shape, grid)
        self._limits: dict[Slab, prune.Threshold] = {}
        if not part.pruned:
            return
        if recipe.scope == "global":
            self._deal(self.slabs, limit, each)
            self.left = replace(limit, ties=limit.ties - sum(own.ties for own in self._limits.values()))
        elif recipe.scope == "tensor" or part.weight.shape[0] == 1:
            self._find(self.slabs, each)
        elif self.slabs[0].shape[1] * part.weight.shape[0] < part.weight.size:  # rows that are cut into slabs
            for _, row in groupby(self.slabs, attrgetter("row")):
                self._find(list(row), each)

    def read(self, slab: Slab) -> Array:
        """The weights of a slab, in one dimension."""
        weights = self.part.weight.read_part(slab.begin, slab.end)
        if not self.part.pruned:
            return weights
        if slab in self._limits:
            return prune.prune(weights, self._limits[slab])[0]
        rows = weights.reshape(slab.shape)
        return prune.prune_rows(self.part.weight.name, rows, self.recipe.prune).reshape(-1)

    def _find(self, among: list[Slab], each: Each) -> None:
        """The threshold of some slabs for themselves."""
        self._deal(among, prune.threshold(_reads(self.part.weight, among), self.recipe.prune, each), each)

    def _deal(self, among: list[Slab], limit: prune.Threshold, each: Each) -> None:
        """Give each of some slabs its ties of a threshold."""

        def ties(slab: Slab) -> int:
            return prune.count_ties(self.part.weight.read_part(slab.begin, slab.end), limit)

        counts = each(ties, among) if limit.ties else repeat(0)
        self._limits.update(zip(among, prune.deal(limit, counts)))  # noqa: B905  (repeat has no end)


@dataclass(frozen=True)
class Packed:
    """A tensor that is packed. symbols: its histogram, None of an uncoded one. ties: of the global threshold, left."""

    tensor: TensorReport
    symbols: codebook.Histogram | None
    ties: int

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        symbols = self.symbols and {"levels": self.symbols.levels.tolist(), "counts": self.symbols.counts.tolist()}
        return {"tensor": asdict(self.tensor), "symbols": symbols, "ties": self.ties}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Packed:
        """The inverse."""
        found = value["symbols"] and codebook.Histogram(
            np.array(value["symbols"]["levels"], np.int32), np.array(value["symbols"]["counts"], np.int64)
        )
        return cls(TensorReport(**fields_of("tensors.jsonl", TensorReport, value["tensor"])), found, value["ties"])


def code_parts(
    parts: list[Part],
    recipe: Recipe,
    limit: prune.Threshold,
    sink: Sink,
    each: Each,
    progress: Progress,
    done: Sequence[Packed] = (),
) -> Iterator[Packed]:
    """Prune and code one tensor after the other. done: the first ones, which an earlier run packed."""
    arena_end = done[-1].tensor.arena_offset + done[-1].tensor.nbytes if done else 0
    left = replace(limit, ties=done[-1].ties) if done else limit
    limits = layout.allowed(recipe.layout, recipe.family, recipe.order)
    ready = counter("coding", sum(part.weight.size for part in parts), progress)
    ready(sum(one.tensor.weights for one in done))
    for part in parts[len(done) :]:
        pruned = Pruned(part, recipe, left, each)
        tensor = Tensor(part.weight.name, part.weight.shape, part.weight.dtype, pruned.read)
        coded = code_raw(tensor, part.why, sink, each) if part.why else code(tensor, recipe.step, limits, sink, each)
        report = TensorReport.of(part.weight, coded, align(arena_end), pruned=part.pruned)
        arena_end, left = report.arena_offset + report.nbytes, pruned.left
        yield Packed(report, coded.symbols, left.ties)
        ready(part.weight.size)


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


def counting(each: Each, done: Callable[[int], None]) -> Each:
    """An `each` that tells of every result that is taken."""

    def counted(function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
        for result in each(function, items):
            yield result
            done(1)

    return counted


def counter(stage: str, total: int, progress: Progress) -> Callable[[int], None]:
    """A function that is told how many more weights of the total are done, and shows the share."""
    count = 0

    def done(weights: int) -> None:
        nonlocal count
        count += weights
        progress(stage, count / max(total, 1))

    return done
