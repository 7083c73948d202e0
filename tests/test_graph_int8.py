"""int8.onnx computes what the original file computes, up to the rounding of activations; and which weights it takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from bsexport.errors import ExportError
from bsexport.graph import walk
from bsexport.graph.int8 import Reading, int8, readings
from bsexport.graph.read import read_onnx
from bsexport.graph.rewrite import plain
from bsexport.quantize import quantize
from bsexport.source import InMemory, Source
from bsexport_runtime.int8 import Int8Form, Int8Matrix, lay_out
from bsexport_runtime.package import ARENA

from .test_graph_forms import CASES, IDS, Arrays, Case, W, X, ort, rand, write_arena

ROWS, COLUMNS, TRANSPOSED = Reading(False, 0), Reading(False, 1), Reading(True, 0)
TIED = """g (int64[B,S] ids, float[20,8] E) => (float[B,S,20] y) {
    x = Gather(E, ids)
    t = Transpose <perm = [1, 0]> (E)
    y = MatMul(x, t)
}"""
MORE = {
    "tied": Case(TIED, {"E": rand(20, 8)}, IDS),
    "tied as it is": Case(
        "g (int64[B,S] ids, float[8,8] E) => (float[B,S,8] y) { x = Gather(E, ids) y = MatMul(x, E) }",
        {"E": rand(8, 9)[:, :8]},
        {"ids": np.array([[1, 0, 7], [-8, 7, -1]])},
    ),
    "tied, one index": Case(
        TIED.replace("int64[B,S]", "int64").replace("[B,S,20]", "[20]"), {"E": rand(20, 8)}, {"ids": np.array(-1)}
    ),
    "three readers": Case(
        """g (float[N,8] x, float[12,8] Q, float[12,8] K, float[8,12] V) =>
            (float[N,12] q, float[N,12] k, float[N,12] v) {
            a = Transpose(Q) b = Transpose(K)
            q = MatMul(x, a) k = MatMul(x, b) v = MatMul(x, V)
        }""",
        {"Q": rand(12, 8), "K": 2 * rand(12, 8), "V": W},
        X,
    ),
}


def int8_graph(source: Source, step: float) -> tuple[onnx.ModelProto, bytes, Arrays]:
    """The graph, its arena as the format says it lies, and the weights that stand in that, dequantised."""
    held, levels = [], {}
    for weight in source.weights:
        reading, matrix = readings([source.graph])[weight.name], None
        if isinstance(reading, Reading):
            levels[weight.name] = quantize(weight.read(), step).astype(np.int64)
            largest = np.abs(levels[weight.name]).max(1 - reading.axis)
            matrix = Int8Matrix(reading.transposed, reading.axis, int((largest > 127).sum()))
        held.append((weight.name, weight.shape, weight.size * weight.dtype.itemsize, matrix))
    form = lay_out(held)
    arena = bytearray(form.arena_bytes)
    weights: Arrays = {}
    for place, weight in zip(form.places, source.weights, strict=True):
        weights[weight.name] = weight.read()
        content = weight.read().tobytes()
        if place.matrix is not None:
            found = levels[weight.name]
            wide = np.maximum(np.abs(found).max(1 - place.matrix.axis, keepdims=True), 127)
            scales = np.where(wide > 127, (wide * step / 127).astype(np.float32), np.float32(step))
            values = (np.sign(found) * np.floor(127 * np.abs(found) / wide + 0.5)).astype(np.int8)
            weights[weight.name] = values * scales
            content = (values.T if place.matrix.transposed else values).tobytes()
            if place.matrix.rescaled:
                arena[place.scales_offset : place.end] = scales.tobytes()
        arena[place.arena_offset : place.arena_offset + len(content)] = content
    return int8(source.graph, form, step), bytes(arena), weights


def largest_weight(source: Source) -> float:
    floats = [weight.read() for weight in source.weights if weight.dtype == np.float32]
    return max((float(np.abs(values).max()) for values in floats), default=1.0)


@pytest.mark.parametrize("levels", [100, 300], ids=["exact", "rescaled"])
@pytest.mark.parametrize(
    "name", [*(name for name in CASES if name != "initializers listed as inputs" and name != "opset 9"), *MORE]
)
def test_int8_computes_nearly_the_same(name: str, levels: int, tmp_path: Path) -> None:
    """Held against the original on the weights that int8 stands for, so that only activations are rounded."""
    case = (CASES | MORE)[name]
    onnx.save(case.model(), tmp_path / "original.onnx")
    source = read_onnx(tmp_path / "original.onnx")
    step = float(np.float32(largest_weight(source) / levels))
    model, arena, weights = int8_graph(source, step)
    (tmp_path / ARENA).write_bytes(arena)
    onnx.save(model, tmp_path / "int8.onnx")
    changed = replace(source, weights=tuple(replace(w, read_part=InMemory(weights[w.name])) for w in source.weights))
    (tmp_path / "plain").mkdir()
    onnx.save(plain(source.graph, write_arena(changed, tmp_path / "plain")), tmp_path / "plain" / "plain.onnx")
    for found, expected in zip(
        ort(tmp_path / "int8.onnx", case.feeds), ort(tmp_path / "plain" / "plain.onnx", case.feeds), strict=True
    ):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_allclose(
            found.astype(np.float64), expected.astype(np.float64), rtol=0, atol=0.02 * np.abs(expected).max(initial=0)
        )


@pytest.mark.parametrize(
    ("text", "weights", "expected"),
    [
        ("g (float[N,8] x, float[8,12] W) => (float[N,12] y) { y = MatMul(x, W) }", {"W": W}, COLUMNS),
        (
            "g (float[N,8] x, float[12,8] W) => (float[N,12] y) { t = Transpose(W) y = MatMul(x, t) }",
            {"W": rand(12, 8)},
            TRANSPOSED,
        ),
        ("g (int64[N] i, float[20,8] W) => (float[N,8] y) { y = Gather(W, i) }", {"W": rand(20, 8)}, ROWS),
        (TIED.replace("E", "W"), {"W": rand(20, 8)}, TRANSPOSED),
        (
            "g (int64[N] i, float[20,8] W) => (float[20,N] y) { y = Gather <axis = 1> (W, i) }",
            {"W": rand(20, 8)},
            "read by Gather",
        ),
        (
            "g (int64[N] i, float[20,8,2] W) => (float[N,8,2] y) { y = Gather(W, i) }",
            {"W": rand(20, 8, 2)},
            "of 3 dimensions",
        ),
        (
            "g (float[N,9] x, float[8,9] W) => (float[8,N] y) { t = Transpose(x) y = MatMul(W, t) }",
            {"W": rand(8, 9)},
            "read by MatMul",
        ),
        (
            "g (float[N,9] x, float[9,9] W) => (float[N,9] y) { t = Transpose(W) a = MatMul(x, t) y = MatMul(a, W) }",
            {"W": rand(9, 9)},
            "multiplied both as it is and transposed",
        ),
        (
            "g (float[N,9] x, float[9,9] W) => (float[N,9] y) { a = MatMul(x, W) y = Add(a, W) }",
            {"W": rand(9, 9)},
            "read by Add",
        ),
        (
            "g (float[N,9] x, float[9,9] W) => (float[N,9] y, float[9,9] W) { y = MatMul(x, W) }",
            {"W": rand(9, 9)},
            "an output of the graph",
        ),
        (
            "g (double[N,9] x, double[9,9] W) => (double[N,9] y) { y = MatMul(x, W) }",
            {"W": rand(9, 9, dtype=np.float64)},
            "double, not float32",
        ),
        (
            "g (float[N,9] x, float[9,9] W) => (float[N,9] y) { y = Gemm <alpha = 0.5> (x, W) }",
            {"W": rand(9, 9)},
            "read by Gemm",
        ),
    ],
)
def test_readings(text: str, weights: Arrays, expected: Reading | str, tmp_path: Path) -> None:
    onnx.save(Case(text, weights, {}).model(), tmp_path / "m.onnx")
    assert readings([read_onnx(tmp_path / "m.onnx").graph]) == {"W": expected}


def test_products_of_one_activation_round_it_once(tmp_path: Path) -> None:
    onnx.save(MORE["three readers"].model(), tmp_path / "m.onnx")
    model, _, _ = int8_graph(read_onnx(tmp_path / "m.onnx"), 0.25)
    kinds = Counter(node.op_type for node in walk.nodes(model.graph))
    assert kinds == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 3}
    assert {(each.name, each.data_type) for each in model.graph.initializer if each.external_data} == {
        (name, onnx.TensorProto.INT8) for name in "QKV"
    }
    assert {each.domain for each in model.opset_import} == {"", "com.microsoft"}


def test_an_opset_without_dynamic_quantisation(tmp_path: Path) -> None:
    onnx.save(CASES["opset 9"].model(), tmp_path / "m.onnx")
    source = read_onnx(tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="--int8 needs ONNX opset 11 or later, the graph has 9; export it anew"):
        int8(source.graph, Int8Form((), 0), 1.0)


def test_matrices_that_are_not_to_be_int8_stay_as_they_are(tmp_path: Path) -> None:
    """A weight that could be int8, but was stored uncoded."""
    onnx.save(MORE["three readers"].model(), tmp_path / "m.onnx")
    source = read_onnx(tmp_path / "m.onnx")
    form = lay_out((weight.name, weight.shape, 4 * weight.size, None) for weight in source.weights)
    model = int8(source.graph, form, 1.0)
    (tmp_path / ARENA).write_bytes(b"".join(weight.read().tobytes() for weight in source.weights))
    onnx.save(model, tmp_path / "int8.onnx")
    assert [each.arena_offset for each in form.places] == [0, 384, 768]
    for found, expected in zip(ort(tmp_path / "int8.onnx", X), ort(tmp_path / "m.onnx", X), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
