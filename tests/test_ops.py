"""The operators of the coded graph in plain onnxruntime, beside numpy on weights that follow from their levels."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from bsexport_runtime import codec
from bsexport_runtime.format import DType, Layout

Levels = npt.NDArray[np.int32]

LIBRARY = str(Path(codec.__file__).with_name("libbsx.so"))

if not codec.backend().startswith("native"):
    pytest.skip(f"NOT TESTED: the operators are in the native library ({codec.backend()})", allow_module_level=True)

STEP = 2.0**-5
LAYOUTS = {"RL": (Layout.RL, 0.9), "BM": (Layout.BM, 0.5), "EG": (Layout.EG, 0.1)}


def levels_of(*shape: int, zeros: float = 0.8, seed: int = 0) -> Levels:
    """Levels of -8 to 8, so many of them zero."""
    random = np.random.default_rng(seed)
    found = random.integers(-8, 9, shape, np.int32)
    return np.where(random.random(shape) < zeros, np.int32(0), found)


def blob_of(levels: Levels, layout: Layout = Layout.RL, dtype: DType = DType.FLOAT32) -> bytes:
    """The levels at STEP; symbol 0 is level 0."""
    codebook = np.array([0, *(level for level in np.unique(levels) if level)], np.int32)
    run_code = 2 if layout is Layout.RL else 0
    return codec.encode(
        levels, dtype=dtype, step=STEP, codebook=codebook, layout=layout, level_code=1, run_code=run_code
    )


def weights_of(levels: Levels) -> npt.NDArray[np.float32]:
    return levels.astype(np.float32) * np.float32(STEP)


def session(
    op: str,
    inputs: list[str],
    blob: bytes,
    x: tuple[int, list[Any] | None],
    out: int = TensorProto.FLOAT,
    **attributes: Any,
) -> ort.InferenceSession:
    """A session of one node. x: type and shape of the input "x", which is the one that is not "blob"."""
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y"], name="the_node", domain="bsexport", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", *x)] if "x" in inputs else [],
        [helper.make_tensor_value_info("y", out, None)],
        [numpy_helper.from_array(np.frombuffer(blob, np.uint8), "blob")],
    )
    return session_of(graph)


def session_of(graph: onnx.GraphProto, threads: int = 2) -> ort.InferenceSession:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bsexport", 1)]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(LIBRARY)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return ort.InferenceSession(model.SerializeToString(), options)


def matmul(levels: Levels, trans_b: int, layout: Layout = Layout.RL) -> ort.InferenceSession:
    x = (TensorProto.FLOAT, None)
    return session("EGMatMul", ["x", "blob"], blob_of(levels, layout), x, shape=list(levels.shape), transB=trans_b)


def test_a_product_literally() -> None:
    levels = np.array([[0, 0, 64], [32, 0, 0]], np.int32)  # times 2^-5
    (y,) = matmul(levels, 0).run(None, {"x": np.array([[3, 5]], np.float32)})
    assert y.tolist() == [[5, 0, 6]]
    (y,) = matmul(levels, 1).run(None, {"x": np.array([1, 10, 100], np.float32)})
    assert y.tolist() == [200, 1]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("lead", [(), (1,), (2,), (1, 33), (3, 1, 65)])
def test_products_of_any_rank(layout: str, trans_b: int, lead: tuple[int, ...]) -> None:
    chosen, zeros = LAYOUTS[layout]
    levels = levels_of(700, 96, zeros=zeros)  # several blocks
    weight = weights_of(levels).T if trans_b else weights_of(levels)
    x = np.random.default_rng(1).normal(size=(*lead, weight.shape[0])).astype(np.float32)
    (y,) = matmul(levels, trans_b, chosen).run(None, {"x": x})
    expected = x.astype(np.float64) @ weight
    assert (y.dtype, y.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("trans_b", [0, 1])
def test_a_product_of_no_rows(trans_b: int) -> None:
    (y,) = matmul(levels_of(6, 9), trans_b).run(None, {"x": np.zeros((2, 0, 9 if trans_b else 6), np.float32)})
    assert y.shape == (2, 0, 6 if trans_b else 9)


def gather(levels: Levels, index_type: int = TensorProto.INT64) -> ort.InferenceSession:
    return session("EGGather", ["blob", "x"], blob_of(levels), (index_type, None), shape=list(levels.shape))


def test_gather_literally() -> None:
    levels = np.array([[0, 32], [64, 0], [0, -32]], np.int32)
    (y,) = gather(levels).run(None, {"x": np.array([[2, 0], [-1, -3]])})
    assert y.tolist() == [[[0, -1], [0, 1]], [[0, -1], [0, 1]]]


@pytest.mark.parametrize("index_type", [np.int32, np.int64])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (500,), (3, 70), (2, 0, 3)])
@pytest.mark.parametrize("weight", [(800, 48), (40, 3, 5), (900,)])
def test_gathers_of_any_rank(index_type: Any, shape: tuple[int, ...], weight: tuple[int, ...]) -> None:
    levels = levels_of(*weight)
    indices = np.random.default_rng(2).integers(-weight[0], weight[0], shape).astype(index_type)
    onnx_type = TensorProto.INT32 if index_type is np.int32 else TensorProto.INT64
    (y,) = gather(levels, onnx_type).run(None, {"x": np.asarray(indices, index_type)})
    np.testing.assert_array_equal(y, weights_of(levels)[indices])


@pytest.mark.parametrize("index", [400, -401, 2**40])
def test_an_index_out_of_bounds(index: int) -> None:
    with pytest.raises(Exception, match=rf"EGGather the_node: index {index} is out of bounds, expected -400 to 399"):
        gather(levels_of(400, 8)).run(None, {"x": np.array([3, index])})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT16, DType.FLOAT64])
def test_decode_in_every_type(layout: str, dtype: DType) -> None:
    chosen, zeros = LAYOUTS[layout]
    levels = levels_of(50, 3, 400, zeros=zeros)  # several blocks
    made = session(
        "EGDecode", ["blob"], blob_of(levels, chosen, dtype), (0, []), int(dtype), shape=[50, 3, 400], dtype=int(dtype)
    )
    (y,) = made.run(None, {})
    assert y.dtype == dtype.storage
    np.testing.assert_array_equal(y, weights_of(levels).astype(dtype.storage))


def test_the_shapes_are_known_before_anything_runs() -> None:
    """Also of dims that only have a name; of those that have none, nothing is told."""
    levels = levels_of(6, 9)
    for op, inputs, kind, dims, expected in (
        ("EGMatMul", ["x", "blob"], TensorProto.FLOAT, ["batch", 2, 9], ["batch", 2, 6]),
        ("EGGather", ["blob", "x"], TensorProto.INT64, ["batch", 4], ["batch", 4, 9]),
        ("EGDecode", ["blob"], 0, [], [6, 9]),
    ):
        extra = {"EGMatMul": {"transB": 1}, "EGDecode": {"dtype": 1}}.get(op, {})
        made = session(op, inputs, blob_of(levels), (kind, dims), shape=[6, 9], **extra)
        assert made.get_outputs()[0].shape == expected, op


def test_a_blob_of_an_outer_graph_is_read_in_a_branch() -> None:
    """There it is no constant to the kernel, which prepares it in each call."""
    levels = levels_of(40, 30)
    then, other = (
        helper.make_graph(
            [helper.make_node("EGMatMul", ["x", "blob"], [name], domain="bsexport", shape=[40, 30], transB=0)],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name in ("a", "b")
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other)],
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in (("yes", 9, []), ("x", 1, [2, 40]))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.frombuffer(blob_of(levels), np.uint8), "blob")],
    )
    x = np.ones((2, 40), np.float32)
    (y,) = session_of(graph).run(None, {"yes": np.array(True), "x": x})
    np.testing.assert_allclose(y, x @ weights_of(levels), atol=1e-5)


def damage(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


GOOD = blob_of(levels_of(60, 400))
X = (TensorProto.FLOAT, None)
REFUSED: dict[str, tuple[str, Callable[[], ort.InferenceSession]]] = {
    "magic": (
        r"EGMatMul the_node: its blob of \d+ bytes breaks the rule BAD_MAGIC of the format: copy the package again",
        lambda: session("EGMatMul", ["x", "blob"], damage(GOOD, 0), X, shape=[60, 400], transB=0),
    ),
    "cut": (
        r"breaks the rule TRUNCATED",
        lambda: session("EGMatMul", ["x", "blob"], GOOD[:-1], X, shape=[60, 400], transB=0),
    ),
    "shape": (
        r"the_node: its blob holds a tensor of shape \[60, 400\], its attribute shape says \[400, 60\]; .*copy the p",
        lambda: session("EGMatMul", ["x", "blob"], GOOD, X, shape=[400, 60], transB=0),
    ),
    "rank": (
        r"shape \[60, 400\], its attribute shape says \[60, 400, 1\]",
        lambda: session("EGGather", ["blob", "x"], GOOD, (TensorProto.INT64, None), shape=[60, 400, 1]),
    ),
    "no shape": (
        r"EGMatMul the_node: its attribute shape is missing or not as expected: pack the model again",
        lambda: session("EGMatMul", ["x", "blob"], GOOD, X, transB=0),
    ),
    "negative shape": (
        r"its attribute shape is missing or not as expected",
        lambda: session("EGMatMul", ["x", "blob"], GOOD, X, shape=[-60, -400], transB=0),
    ),
    "transB": (
        r"its attribute transB is missing or not as expected",
        lambda: session("EGMatMul", ["x", "blob"], GOOD, X, shape=[60, 400], transB=2),
    ),
    "dtype": (
        r"EGDecode the_node: its attribute dtype is missing or not as expected",
        lambda: session("EGDecode", ["blob"], GOOD, (0, []), TensorProto.BOOL, shape=[60, 400], dtype=9),
    ),
    "raw": (
        r"its blob is not coded \(layout RAW\), expected EG, RL or BM: pack the model again",
        lambda: session(
            "EGMatMul",
            ["x", "blob"],
            codec.encode_raw(np.ones((2, 3), np.float32).tobytes(), (2, 3), DType.FLOAT32),
            X,
            shape=[2, 3],
            transB=0,
        ),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_session_is_made_of(case: str) -> None:
    message, make = REFUSED[case]
    with pytest.raises(Exception, match=message):
        make()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_damaged_block_is_named_when_it_is_read(threads: int) -> None:
    bad = damage(GOOD, len(GOOD) - 1)  # in the last of its two blocks
    made = session("EGMatMul", ["x", "blob"], bad, X, shape=[60, 400], transB=1)
    with pytest.raises(Exception, match=r"the_node: block 1 of its blob is damaged \(BLOCK_CRC\): copy the package ag"):
        made.run(None, {"x": np.ones((threads, 400), np.float32)})


def test_columns_that_do_not_fit() -> None:
    made = matmul(levels_of(6, 9), 1)
    for shape, found in (((2, 8), "x has 8 columns, expected 9"), ((), "x is a scalar, expected a matrix")):
        with pytest.raises(Exception, match=found):
            made.run(None, {"x": np.zeros(shape, np.float32)})


def test_sixteen_threads_call_one_session() -> None:
    levels = levels_of(700, 96)
    made = matmul(levels, 1)
    wrong: list[int] = []

    def call(seed: int) -> None:
        for round in range(30):
            x = np.random.default_rng(seed * 100 + round).normal(size=(1 + round % 5, 96)).astype(np.float32)
            (y,) = made.run(None, {"x": x})
            if not np.allclose(y, x @ weights_of(levels).T, atol=1e-4):
                wrong.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_the_operators_register_from_many_threads_at_once() -> None:
    """In a process of their own, so that none is registered yet."""
    script = f"""
import threading, onnxruntime as ort
gate = threading.Barrier(8)
def register():
    options = ort.SessionOptions()
    gate.wait()
    options.register_custom_ops_library({LIBRARY!r})
threads = [threading.Thread(target=register) for _ in range(8)]
[each.start() for each in threads]
[each.join() for each in threads]
print("done")
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "done\n"
