"""Hold a package against its own checksums, and against the model that it was made from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from bsexport.errors import SourceError, VerifyError
from bsexport.graph import rewrite
from bsexport.graph.schema import refusal
from bsexport.graph.skeleton import declared_weights
from bsexport.inputs import TEXT_INPUTS, sample_inputs
from bsexport.pipeline import Progress, Pruned, counter, take_part, threshold
from bsexport.recipe import Recipe
from bsexport.slabs import Each, Slab, Workers
from bsexport.source import Source
from bsexport.steps import disagreement
from bsexport.unpack import read_part
from bsexport_runtime.cache import PRESENT
from bsexport_runtime.encoder import CROSS
from bsexport_runtime.errors import PackageError
from bsexport_runtime.format import align
from bsexport_runtime.package import CODED_GRAPH, ENCODER, MANIFEST, PLAIN_GRAPH, Package, Tensor
from bsexport_runtime.session import Session, load, own_options

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class OutputDeviation:
    """One output on made-up inputs.

    deviation: the largest |output of the package - output of the model|; None if the package's is not finite.
    scale: the largest |output of the model|.
    """

    deviation: float | None
    scale: float


@dataclass(frozen=True)
class Comparison:
    """A package against the model that it was made from.

    weight_error: the largest |weight - decoded weight| over the coded weights, after pruning, in units of step/2.
    wrong: one line for everything that is not what the model's, pruned and quantised, should be.
    outputs: by name. Empty if the graph cannot be run on made-up inputs; why_no_outputs says why.
    """

    weight_error: float
    wrong: tuple[str, ...]
    outputs: dict[str, OutputDeviation]
    why_no_outputs: str = ""


@dataclass(frozen=True)
class Verdict:
    """What verify found. tensors, files: how many were checked. wrong: a line each. comparison: if it was asked for."""

    package: Path
    tensors: int
    files: int
    wrong: tuple[str, ...]
    comparison: Comparison | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything, for --json."""
        found = {"package": str(self.package), "tensors": self.tensors, "files": self.files, "wrong": list(self.wrong)}
        if self.comparison is None:
            return found
        return found | {key: value for key, value in asdict(self.comparison).items() if key != "wrong"}

    def to_text(self) -> str:
        """What was checked, without what is wrong."""
        state = f"{len(self.wrong)} faults" if self.wrong else "sound"
        lines = [f"{self.package}: {state}, {self.tensors} tensors and {self.files} files checked"]
        if (found := self.comparison) is not None:
            lines.append(f"largest error of a weight that was not pruned: {found.weight_error:.4f} of step/2")
            for name, output in _cache_as_one(found.outputs).items():
                if output.deviation is not None:
                    lines.append(
                        f"output {name}: deviates by at most {output.deviation:.3g} from the model's on made-up "
                        f"inputs, where the model's largest value is {output.scale:.3g}"
                    )
            if found.why_no_outputs:
                lines.append(f"outputs were not compared: {found.why_no_outputs}")
        return "\n".join(lines)


def _cache_as_one(outputs: dict[str, OutputDeviation]) -> dict[str, OutputDeviation]:
    """The outputs, the many keys and values of a language model's layers as the one that is furthest off."""
    shown = {name: output for name, output in outputs.items() if not name.startswith((PRESENT, CROSS))}
    for prefix in (PRESENT, CROSS):
        if layers := [output for name, output in outputs.items() if name.startswith(prefix)]:
            shown[f"{prefix}*"] = max(layers, key=lambda output: output.deviation or 0)
    return shown


def check(
    path: Path, open_model: Callable[[str | None], Source] | None, progress: Progress, *, threads: int = 1
) -> Verdict:
    """Check every checksum, block and the coded graph; then, if the package is sound, compare it with its model.

    open_model: opens the model for a task, if the package is to be compared with one.
    Raises PackageError if the package cannot be opened at all, SourceError if the model is another one.
    """
    package = Package(path)
    wrong = (*package.verify(), *_check_graph(package))
    comparison = None
    if open_model is not None and not wrong:
        comparison = compare(path, open_model(package.manifest.get("task")), progress, threads=threads)
        wrong = comparison.wrong
    return Verdict(package.path, len(package.tensors), len(package.files), wrong, comparison)


def _check_graph(package: Package) -> Iterator[str]:
    """A line if onnx's checker refuses a coded graph. A damaged file is not looked at: its checksum is wrong."""
    for prefix in package.graphs:
        names = (prefix + CODED_GRAPH, prefix + PLAIN_GRAPH)
        try:
            coded, plain = (onnx.load_from_string(package.read_bytes(name)) for name in names)
        except PackageError:
            continue
        except DecodeError:
            yield f"{package.path}: {' or '.join(names)} is no ONNX graph; pack the model again"
            continue
        if (why := refusal(coded, plain)) is not None:
            yield f"{package.path / names[0]}: onnx refuses it: {why}; pack the model again"


def compare(path: Path, source: Source, progress: Progress, *, threads: int = 1) -> Comparison:
    """Compare a sound package with the model that it was made from.

    Raises SourceError if the model has other tensors than the package.
    """
    package = Package(path)
    _check_same_tensors(package, source)
    with Workers(threads) as workers:
        error, wrong = _compare_weights(package, source, workers.each, progress)
    try:
        outputs, why = _compare_outputs(path, source), ""
        wrong += _compare_steps(path, source)
    except VerifyError as failure:
        outputs, why = {}, str(failure)
    wrong += [f"output {name}: is not finite, the model's is" for name in outputs if outputs[name].deviation is None]
    return Comparison(error, tuple(wrong), outputs, why)


def _check_same_tensors(package: Package, source: Source) -> None:
    packed = {tensor.name: tensor.shape for tensor in package.tensors}
    model = {weight.name: weight.shape for weight in source.weights}
    if packed != model:
        names = sorted(name for name in packed.keys() | model.keys() if packed.get(name) != model.get(name))
        name = names[0]
        raise SourceError(
            f"{source.name}: is not the model of {package.path}: {len(names)} tensors differ, such as {name} "
            f"({_shape(model, name)} in the model, {_shape(packed, name)} in the package); "
            "give the model that was packed"
        )


def _shape(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    return " x ".join(map(str, shapes[name])) if name in shapes else "absent"


def _compare_weights(package: Package, source: Source, each: Each, progress: Progress) -> tuple[float, list[str]]:
    """Prune the model's weights again and hold every one against the decoded."""
    recipe = Recipe.from_json(package.manifest["recipe"])
    parts = take_part(source.weights, recipe)
    limit = threshold(parts, recipe, each, progress)
    wrong = []
    if package.manifest["threshold"] != limit.magnitude:
        wrong.append(
            f"{package.path / MANIFEST}: threshold is {package.manifest['threshold']}, "
            f"but pruning {recipe.prune:g} of the model's weights takes {limit.magnitude}"
        )
    tensors = {tensor.name: tensor for tensor in package.tensors}
    largest, done = 0.0, counter("comparing", sum(part.weight.size for part in parts), progress)
    for part in parts:
        tensor = tensors[part.weight.name]
        head = package.head(tensor)
        pruned = Pruned(part, recipe, limit, each, (head.block_rows, head.block_cols))
        if tensor.info["why"]:
            wrong.extend(_compare_raw(package, tensor, pruned, each))
        else:
            error, lines = _compare_coded(package, tensor, pruned, each)
            largest = max(largest, error)
            wrong.extend(lines)
        package.release(tensor)
        limit = pruned.left
        done(part.weight.size)
    return largest, wrong


def _compare_raw(package: Package, tensor: Tensor, pruned: Pruned, each: Each) -> list[str]:
    def differs(slab: Slab) -> bool:
        decoded, expected = read_part(package, tensor, slab.begin, slab.end), pruned.read(slab)
        return decoded.dtype != expected.dtype or decoded.tobytes() != expected.tobytes()

    if not any(each(differs, pruned.slabs)):
        return []
    return [f"tensor {tensor.name}: is stored as it is, but differs from the model's"]


def _compare_coded(package: Package, tensor: Tensor, pruned: Pruned, each: Each) -> tuple[float, list[str]]:
    """The largest error in units of step/2, and a line if a weight is further off than that.

    Beyond step/2 only the rounding of the product level * step and of the stored type may go.
    """
    half = pruned.recipe.step / 2

    def errors(slab: Slab) -> tuple[float, int]:
        decoded, expected = read_part(package, tensor, slab.begin, slab.end), pruned.read(slab)
        values = decoded.astype(np.float64)
        found = np.abs(expected.astype(np.float64) - values)
        info = ml_dtypes.finfo(decoded.dtype)
        epsilon = max(float(info.eps), float(np.finfo(np.float32).eps))
        rounding = epsilon * np.abs(values) + float(info.smallest_subnormal)
        return float(found.max()), int(np.count_nonzero(~(found <= half + rounding)))

    largest, bad = zip(*each(errors, pruned.slabs), strict=True)
    line = f"tensor {tensor.name}: {sum(bad)} weights are further than step/2 from the model's, pruned"
    return float(np.max(largest)) / half, [line] if any(bad) else []


def _compare_outputs(path: Path, source: Source) -> dict[str, OutputDeviation]:
    """Run the package and the model on made-up inputs, one after the other.

    Raises VerifyError if they do not fit the graph, or all weights decoded do not fit into memory.
    """
    needed, free = Package(path).arena_bytes, _free_memory()
    if free is not None and needed > free:
        raise VerifyError(
            f"running the model takes {needed / 1e9:.1f} GB of memory, of which {free / 1e9:.1f} are free"
        )
    packed = _answers(load(path), source)  # this session is gone before the other comes
    dense = _answers(dense_session(source), source)
    return {name: deviation(name, got, dense[name]) for name, got in packed.items()}


def _free_memory() -> int | None:
    """Bytes that a process can have on this machine and under its own limit; None where the system does not say."""
    if sys.platform != "linux":
        return None
    import resource

    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return free
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return min(free, limit - int(status["VmData"].split()[0]) * 1024)


def _answers(session: Session, source: Source) -> dict[str, Array]:
    """The outputs of the session, and of its encoder's if it has one, to made-up inputs, by name."""
    found: dict[str, Array] = {}
    sessions = [session] if session.encoder is None else [session, session.encoder]
    for each, graph in zip(sessions, source.graphs.values(), strict=True):
        names = [output.name for output in each.get_outputs() if output.type.startswith("tensor(")]
        try:
            found |= zip(names, each.run(names, sample_inputs(each, graph.graph)), strict=True)
        except Exception as error:  # onnxruntime's errors have no base class of their own
            raise VerifyError(f"the graph does not take the made-up inputs: {' '.join(str(error).split())}") from error
    return found


def _compare_steps(path: Path, source: Source) -> list[str]:
    """A line if a language model's answers depend on how its texts are cut."""
    session = load(path)
    if not {value.name for value in session.get_inputs()}.issuperset(TEXT_INPUTS):
        return []
    found = disagreement(session, sample_inputs(session, source.graph.graph))
    return [] if found is None else [found]


def deviation(name: str, got: Array, expected: Array) -> OutputDeviation:
    """How far an output is from the model's. Raises VerifyError if they cannot be compared."""
    if got.dtype.kind not in "fiub" or got.shape != expected.shape:
        raise VerifyError(f"output {name} is {got.dtype} {got.shape}, the model's {expected.dtype} {expected.shape}")
    if not np.isfinite(expected).all():
        raise VerifyError(f"output {name} of the model is not finite on made-up inputs")
    scale = float(np.abs(expected.astype(np.float64)).max(initial=0))
    if not np.isfinite(got).all():
        return OutputDeviation(None, scale)
    return OutputDeviation(float(np.abs(got.astype(np.float64) - expected).max(initial=0)), scale)


def dense_session(source: Source, *, values: bool = True) -> Session:
    """A session over the model's own weights, neither pruned nor quantised, on the graphs that pack makes.

    values: False leaves all weights 0, and takes no memory for them, if only inputs and outputs matter.
    """
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for weight in source.weights:
        places[weight.name] = (align(end), weight.size * weight.dtype.itemsize)
        end = sum(places[weight.name])
    arena = np.zeros(end, np.uint8)
    for weight in source.weights if values else ():
        offset, size = places[weight.name]
        arena[offset : offset + size] = np.ascontiguousarray(weight.read()).reshape(-1).view(np.uint8)
    options = own_options(None)
    made: dict[str, Session] = {}
    for prefix, graph in source.graphs.items():
        declared = {tensor.name: places[tensor.name] for tensor in declared_weights(graph)}
        plain = rewrite.plain(graph, declared).SerializeToString()
        made[prefix] = Session(plain, arena, options, beside=made.get(""), providers=["CPUExecutionProvider"])
    made[""].encoder = made.get(ENCODER)
    return made[""]
