"""Every form of a graph computes what the original file computes: read, cleaned, plain, coded, standard again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import onnx
import onnx.checker
import onnx.defs
import onnx.parser
import onnx.reference
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.reference.op_run import OpRun

from bsexport.graph import walk
from bsexport.graph.read import read_onnx
from bsexport.graph.rewrite import BlobPlace, coded, plain
from bsexport.graph.schema import DOMAIN, register
from bsexport.graph.standard import write_standard
from bsexport.source import Source
from bsexport_runtime.package import ARENA, WEIGHTS

Arrays = dict[str, np.ndarray]


def rand(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(dtype)


def literal(array: np.ndarray) -> str:
    """The values of an array as ONNX text."""
    return "{" + ", ".join(repr(float(value)) for value in array.ravel()) + "}"


@dataclass
class Case:
    """text: an ONNX graph whose inputs named in `weights` become initializers with those values.

    left: how many EGDecode nodes, and fused nodes of ours, the coded graph must have.
    """

    text: str
    weights: Arrays
    feeds: Arrays
    left: dict[str, int] = field(default_factory=dict)
    opset: int = 17
    ir: int = 8
    functions: str = ""

    def model(self) -> onnx.ModelProto:
        imports = f'"" : {self.opset}' + (', "local" : 1' if self.functions else "")
        header = f"<ir_version: {self.ir}, opset_import: [{imports}]>"
        model = onnx.parser.parse_model(f"{header}\n{self.text}\n{self.functions}")
        for name, array in self.weights.items():
            model.graph.initializer.append(numpy_helper.from_array(array, name))
            if self.ir >= 4:
                model.graph.input.remove(next(value for value in model.graph.input if value.name == name))
        return model


X = {"x": rand(3, 8)}
IDS = {"ids": np.array([[1, 0, 19], [7, 7, -1]], np.int64)}
W = rand(8, 12)
CASES = {
    "matmul": Case(
        "g (float[N,8] x, float[8,12] W) => (float[N,12] y) { y = MatMul(x, W) }", {"W": W}, X, {"EGMatMul": 1}
    ),
    "matmul of rank 1": Case(
        "g (float[8] x, float[8,12] W) => (float[12] y) { y = MatMul(x, W) }", {"W": W}, {"x": rand(8)}, {"EGMatMul": 1}
    ),
    "linear": Case(
        """g (float[B,N,8] x, float[20,8] W, float[20] b) => (float[B,N,20] y) {
            t = Transpose <perm = [1, 0]> (W)
            p = MatMul(x, t)
            y = Add(b, p)
        }""",
        {"W": rand(20, 8), "b": rand(20)},
        {"x": rand(2, 3, 8)},
        {"EGMatMul": 1},
    ),
    "transpose without perm, of rank 1": Case(
        "g (float[8] x, float[20,8] W) => (float[20] y) { t = Transpose(W) y = MatMul(x, t) }",
        {"W": rand(20, 8)},
        {"x": rand(8)},
        {"EGMatMul": 1},
    ),
    "transpose that does nothing": Case(
        "g (float[N,8] x, float[8,12] W) => (float[N,12] y) { t = Transpose <perm = [0, 1]> (W) y = MatMul(x, t) }",
        {"W": W},
        X,
        {"EGDecode": 1},
    ),
    "transposed for two readers": Case(
        """g (float[N,8] x, float[20,8] W) => (float[N,20] y, float[8,20] z) {
            t = Transpose <perm = [1, 0]> (W)
            y = MatMul(x, t)
            z = Relu(t)
        }""",
        {"W": rand(20, 8)},
        X,
        {"EGMatMul": 1, "EGDecode": 1},
    ),
    "weight on the left": Case(
        "g (float[12,N] x, float[8,12] W) => (float[8,N] y) { y = MatMul(W, x) }",
        {"W": W},
        {"x": rand(12, 3)},
        {"EGDecode": 1},
    ),
    "batched weight": Case(
        "g (float[2,N,8] x, float[2,8,12] W) => (float[2,N,12] y) { y = MatMul(x, W) }",
        {"W": rand(2, 8, 12)},
        {"x": rand(2, 3, 8)},
        {"EGDecode": 1},
    ),
    "gemm": Case(
        "g (float[N,8] x, float[20,8] W, float[20] b) => (float[N,20] y) { y = Gemm <transB = 1> (x, W, b) }",
        {"W": rand(20, 8), "b": rand(20)},
        X,
        {"EGMatMul": 1},
    ),
    "gemm without bias": Case(
        "g (float[N,8] x, float[8,12] W) => (float[N,12] y) { y = Gemm <beta = 0.5> (x, W) }",
        {"W": W},
        X,
        {"EGMatMul": 1},
    ),
    "gemm with alpha": Case(
        "g (float[N,8] x, float[8,12] W, float[12] b) => (float[N,12] y) { y = Gemm <alpha = 0.5> (x, W, b) }",
        {"W": W, "b": rand(12)},
        X,
        {"EGDecode": 1},
    ),
    "gemm with beta": Case(
        "g (float[N,8] x, float[8,12] W, float[12] b) => (float[N,12] y) { y = Gemm <beta = 0.5> (x, W, b) }",
        {"W": W, "b": rand(12)},
        X,
        {"EGDecode": 1},
    ),
    "gemm with transA": Case(
        "g (float[8,N] x, float[8,12] W) => (float[N,12] y) { y = Gemm <transA = 1> (x, W) }",
        {"W": W},
        {"x": rand(8, 3)},
        {"EGDecode": 1},
    ),
    "gather": Case(
        "g (int64[B,S] ids, float[20,8] W) => (float[B,S,8] y) { y = Gather(W, ids) }",
        {"W": rand(20, 8)},
        IDS,
        {"EGGather": 1},
    ),
    "gather of rank 3 on axis -3": Case(
        "g (int64[B,S] ids, float[20,2,4] W) => (float[B,S,2,4] y) { y = Gather <axis = -3> (W, ids) }",
        {"W": rand(20, 2, 4)},
        IDS,
        {"EGGather": 1},
    ),
    "gather on axis 1": Case(
        "g (int64[B,S] ids, float[8,20] W) => (float[8,B,S] y) { y = Gather <axis = 1> (W, ids) }",
        {"W": rand(8, 20)},
        IDS,
        {"EGDecode": 1},
    ),
    "tied embedding": Case(
        """g (int64[B,S] ids, float[20,8] W) => (float[B,S,20] y) {
            e = Gather(W, ids)
            t = Transpose <perm = [1, 0]> (W)
            y = MatMul(e, t)
        }""",
        {"W": rand(20, 8)},
        IDS,
        {"EGGather": 1, "EGMatMul": 1},
    ),
    "tied through identity": Case(
        """g (int64[B,S] ids, float[20,8] W) => (float[B,S,20] y) {
            v = Identity(W)
            u = Identity(v)
            e = Gather(W, ids)
            t = Transpose <perm = [1, 0]> (u)
            y = MatMul(e, t)
        }""",
        {"W": rand(20, 8)},
        IDS,
        {"EGGather": 1, "EGMatMul": 1},
    ),
    "shared by product and sum": Case(
        "g (float[12,12] x, float[12,12] W) => (float[12,12] y) { p = MatMul(x, W) q = MatMul(p, W) y = Add(q, W) }",
        {"W": rand(12, 12)},
        {"x": rand(12, 12)},
        {"EGMatMul": 2, "EGDecode": 1},
    ),
    "product with itself": Case(
        "g (float[12,12] x, float[12,12] W) => (float[12,12] y) { p = MatMul(W, W) y = Add(p, x) }",
        {"W": rand(12, 12)},
        {"x": rand(12, 12)},
        {"EGMatMul": 1, "EGDecode": 1},
    ),
    "byte-identical weights": Case(
        "g (float[N,12] x, float[12,12] V, float[12,12] W) => (float[N,12] y) { p = MatMul(x, V) y = MatMul(p, W) }",
        {"V": rand(12, 12), "W": rand(12, 12)},
        {"x": rand(3, 12)},
        {"EGMatMul": 2},
    ),
    "all zero and all equal": Case(
        "g (float[N,12] x, float[12,12] Z, float[12,12] E) => (float[N,12] y) { p = MatMul(x, E) q = MatMul(x, Z) "
        "y = Add(p, q) }",
        {"Z": np.zeros((12, 12), np.float32), "E": np.full((12, 12), 0.25, np.float32)},
        {"x": rand(3, 12)},
        {"EGMatMul": 2},
    ),
    "conv": Case(
        "g (float[N,3,8,8] x, float[4,3,3,3] W, float[4] b) => (float[N,4,6,6] y) { y = Conv(x, W, b) }",
        {"W": rand(4, 3, 3, 3), "b": rand(4)},
        {"x": rand(2, 3, 8, 8)},
        {"EGDecode": 1},
    ),
    "lstm": Case(
        """g (float[T,B,8] x, float[1,16,8] W, float[1,16,4] R, float[1,32] b) => (float[T,1,B,4] y) {
            y = LSTM <hidden_size = 4> (x, W, R, b)
        }""",
        {"W": rand(1, 16, 8), "R": rand(1, 16, 4), "b": rand(1, 32)},
        {"x": rand(5, 2, 8)},
        {"EGDecode": 1},  # R has 64 elements: it stays inline
    ),
    "gru": Case(
        "g (float[T,B,8] x, float[1,18,8] W, float[1,18,6] R) => (float[T,1,B,6] y) "
        "{ y = GRU <hidden_size = 6, linear_before_reset = 1> (x, W, R) }",
        {"W": rand(1, 18, 8), "R": rand(1, 18, 6)},
        {"x": rand(5, 2, 8)},
        {"EGDecode": 2},
    ),
    "if with equal names in both branches": Case(
        f"""g (bool c, float[N,8] x) => (float[N,12] y) {{
            y = If (c) <
                then_branch = a () => (float[N,12] z) <float[8,12] W = {literal(W)}> {{ z = MatMul(x, W) }},
                else_branch = b () => (float[N,12] z) <float[8,12] W = {literal(-2 * W)}> {{ z = MatMul(x, W) }}
            >
        }}""",
        {},
        {"c": np.array(True), **X},
        {"EGMatMul": 2},
    ),
    "loop whose input hides an outer weight": Case(
        """g (float[12,12] x, int64 n, bool go, float[12,12] W) => (float[12,12] y) {
            p = MatMul(x, W)
            q = Loop (n, go, x) <body = b (int64 i, bool c, float[12,12] W) => (bool c2, float[12,12] z) {
                c2 = Identity(c)
                z = MatMul(W, W)
            }>
            y = Add(p, q)
        }""",
        {"W": rand(12, 12)},
        {"x": rand(12, 12) / 12, "n": np.array(2), "go": np.array(True)},
        {"EGMatMul": 1},
    ),
    "if that returns its constants": Case(
        f"""g (bool c) => (float[8,12] y) {{
            y = If (c) <
                then_branch = a () => (float[8,12] z) {{ z = Constant <value = float[8,12] {literal(W)}> () }},
                else_branch = b () => (float[8,12] z) <float[8,12] z = {literal(-W)}> {{ }}
            >
        }}""",
        {},
        {"c": np.array(False)},
        {"EGDecode": 2},
    ),
    "loop with a constant in its body": Case(
        f"""g (float[N,8] x, int64 n, bool go) => (float[N,8] y) {{
            y = Loop (n, go, x) <body = b (int64 i, bool c, float[N,8] h) => (bool c2, float[N,8] h2) {{
                c2 = Identity(c)
                K = Constant <value = float[8,8] {literal(rand(8, 8))}> ()
                L = Constant <value_floats = [{literal(rand(72))[1:-1]}]> ()
                s = ReduceSum <keepdims = 0> (L)
                big = Constant <value = float[8,9] {literal(rand(8, 9))}> ()
                p = MatMul(h, K)
                q = MatMul(h, big)
                r = ReduceMax <axes = [1]> (q)
                pr = Add(p, r)
                h2 = Add(pr, s)
            }}>
        }}""",
        {},
        {**X, "n": np.array(3), "go": np.array(True)},
        {"EGMatMul": 1},  # K has 64 elements, and L is a vector
    ),
    "scan over rows": Case(
        f"""g (float[12] h, float[T,8] x) => (float[12] last, float[T,12] all) {{
            last, all = Scan (h, x) <num_scan_inputs = 1, body = b (float[12] s, float[8] e)
                => (float[12] s2, float[12] o) <float[8,12] W = {literal(W)}> {{
                m = MatMul(e, W)
                s2 = Add(s, m)
                o = Identity(s2)
            }}>
        }}""",
        {},
        {"h": rand(12), "x": rand(5, 8)},
        {"EGMatMul": 1},
    ),
    "constant in the main graph": Case(
        f"""g (float[N,8] x) => (float[N,12] y) {{
            W = Constant <value = float[8,12] {literal(W)}> ()
            y = MatMul(x, W)
        }}""",
        {},
        X,
        {"EGMatMul": 1},
    ),
    "a weight is an output": Case(
        "g (float[N,8] x, float[8,12] W) => (float[N,12] y, float[8,12] W) { y = MatMul(x, W) }",
        {"W": W},
        X,
        {"EGMatMul": 1, "EGDecode": 1},
    ),
    "nothing to code": Case("g (float[N,8] x, float s) => (float[N,8] y) { y = Mul(x, s) }", {"s": rand()}, X, {}),
    "empty tensor": Case(
        "g (float[N,8] x, float[0,8] E) => (float[M,8] y) { y = Concat <axis = 0> (x, E) }",
        {"E": np.zeros((0, 8), np.float32)},
        X,
    ),
    "float16": Case(
        "g (float16[N,8] x, float16[8,12] W) => (float16[N,12] y) { y = MatMul(x, W) }",
        {"W": W.astype(np.float16)},
        {"x": rand(3, 8, dtype=np.float16)},
        {"EGDecode": 1},
    ),
    "bfloat16": Case(
        "g (float[N,8] x, bfloat16[8,12] W) => (float[N,12] y) { w = Cast <to = 1> (W) y = MatMul(x, w) }",
        {"W": W.astype(ml_dtypes.bfloat16)},
        X,
        {"EGDecode": 1},
    ),
    "float64": Case(
        "g (double[N,8] x, double[12,8] W) => (double[N,12] y) { t = Transpose(W) y = MatMul(x, t) }",
        {"W": rand(12, 8, dtype=np.float64)},
        {"x": rand(3, 8, dtype=np.float64)},
        {"EGDecode": 1},
    ),
    "integers": Case(
        "g (int64[B,S] ids, int64[1100] T, int8[1100] U, bool[1100] V) => (int64[B,S] y, int8[B,S] z, bool[B,S] w) "
        "{ y = Gather(T, ids) z = Gather(U, ids) w = Gather(V, ids) }",
        {
            "T": np.arange(1100) - 5,
            "U": (np.arange(1100) % 256 - 128).astype(np.int8),
            "V": np.arange(1100) % 3 == 0,
        },
        IDS,
        {},
    ),
    "initializers listed as inputs": Case(
        "g (float[N,8] x, float[8,12] W, float[12] b) => (float[N,12] y) { p = MatMul(x, W) y = Add(p, b) }",
        {"W": W, "b": rand(12)},
        X,
        {"EGMatMul": 1},
        ir=3,
        opset=9,
    ),
    "model function": Case(
        "g (float[N,8] x, float[8,12] W) => (float[N,12] y) { y = local.lin(x, W) }",
        {"W": W},
        X,
        {"EGDecode": 1},
        functions='<domain: "local", opset_import: ["" : 17]> lin (a, b) => (c) { d = MatMul(a, b) c = Relu(d) }',
    ),
    **{
        f"opset {opset}": Case(
            """g (int64[B,S] ids, float[20,8] E, float[8,12] W, float[12,12] V, float[12] b) => (float[M,12] y) {
                e = Gather(E, ids)
                p = MatMul(e, W)
                r = Flatten <axis = 2> (p)
                y = Gemm <transB = 1> (r, V, b)
            }""",
            {"E": rand(20, 8), "W": W, "V": rand(12, 12), "b": rand(12)},
            IDS,
            {"EGGather": 1, "EGMatMul": 2},
            opset=opset,
            ir=ir,
        )
        for opset, ir in ((9, 4), (11, 6), (13, 7), (17, 8), (21, 10))
    },
}


def ort(model: Path, feeds: Arrays) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def equal(found: list[np.ndarray], expected: list[np.ndarray], *, fused: bool = False) -> None:
    """The same bits; fused: but for the order of sums, which may differ between MatMul and FusedMatMul."""
    for one, other in zip(found, expected, strict=True):
        if fused:
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, strict=True)
        else:
            np.testing.assert_array_equal(one, other, strict=True)


def fused(model: onnx.ModelProto) -> bool:
    return any(node.op_type == "FusedMatMul" for node in walk.nodes(model.graph))


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def original(case: Case, tmp_path: Path) -> Path:
    path = tmp_path / "original" / "model.onnx"
    path.parent.mkdir()
    onnx.save(case.model(), path)
    return path


def write_arena(source: Source, folder: Path) -> dict[str, tuple[int, int]]:
    """All weights of a source in one file, each at a multiple of 64, and where they are."""
    arena: dict[str, tuple[int, int]] = {}
    data = b""
    for weight in source.weights:
        data += bytes(-len(data) % 64)
        values = weight.read().tobytes()
        arena[weight.name] = (len(data), len(values))
        data += values
    (folder / ARENA).write_bytes(data)
    return arena


def test_plain_computes_the_same(case: Case, original: Path, tmp_path: Path) -> None:
    source = read_onnx(original)
    decoded = plain(source.graph, write_arena(source, tmp_path))
    onnx.save(decoded, tmp_path / "decoded.onnx")
    onnx.checker.check_model(tmp_path / "decoded.onnx", full_check=True)
    equal(ort(tmp_path / "decoded.onnx", case.feeds), ort(original, case.feeds), fused=fused(decoded))


class FakeBlobs:
    """Stands in for the codec: a blob is 16 bytes that name a weight, and `weights` tells its values."""

    weights: ClassVar[Arrays] = {}

    @classmethod
    def decode(cls, blob: np.ndarray, shape: list[int]) -> np.ndarray:
        assert blob.dtype == np.uint8
        values = cls.weights[blob.tobytes().rstrip(b"\0").decode()]
        assert tuple(shape) == values.shape
        return values


class EGMatMul(OpRun):
    op_domain = DOMAIN

    def _run(self, x: np.ndarray, blob: np.ndarray, shape: list[int], transB: int) -> tuple[np.ndarray]:  # noqa: N803
        weight = FakeBlobs.decode(blob, shape)
        assert x.dtype == weight.dtype == np.float32
        return (np.matmul(x, weight.T if transB else weight),)


class EGGather(OpRun):
    op_domain = DOMAIN

    def _run(self, blob: np.ndarray, indices: np.ndarray, shape: list[int]) -> tuple[np.ndarray]:
        return (FakeBlobs.decode(blob, shape)[indices],)


class EGDecode(OpRun):
    op_domain = DOMAIN

    def _run(self, blob: np.ndarray, shape: list[int], dtype: int) -> tuple[np.ndarray]:
        values = FakeBlobs.decode(blob, shape)
        assert values.dtype == helper.tensor_dtype_to_np_dtype(dtype)
        return (values,)


def write_blobs(source: Source, folder: Path, raw: frozenset[str] = frozenset()) -> dict[str, BlobPlace]:
    """weights.bsx with a fake blob per weight: a name of 16 bytes, then for raw weights the values."""
    FakeBlobs.weights = {weight.name: weight.read() for weight in source.weights}
    places: dict[str, BlobPlace] = {}
    data = bytes(64)
    for weight in source.weights:
        payload = weight.read().tobytes() if weight.name in raw else b""
        places[weight.name] = BlobPlace(
            len(data), 16 + len(payload), len(data) + 16, len(payload), coded=weight.name not in raw
        )
        data += weight.name.encode().ljust(16, b"\0") + payload
        data += bytes(-len(data) % 64)
    (folder / WEIGHTS).write_bytes(data)
    return places


def run_coded(model: onnx.ModelProto, folder: Path, feeds: Arrays) -> list[np.ndarray]:
    onnx.save(model, folder / "model.onnx")
    register()
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    evaluator = onnx.reference.ReferenceEvaluator(str(folder / "model.onnx"), new_ops=[EGMatMul, EGGather, EGDecode])
    return evaluator.run(None, feeds)


def ours(model: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in walk.nodes(model.graph) if node.domain == DOMAIN))


def test_coded_computes_the_same(case: Case, original: Path, tmp_path: Path) -> None:
    source = read_onnx(original)
    raw = frozenset(
        weight.name
        for weight in source.weights
        if weight.dtype.kind in "iub" or (len(weight.shape) == 1 and weight.shape[0] < 1000)
    )
    model = coded(source.graph, write_blobs(source, tmp_path, raw=raw))
    assert ours(model) == case.left
    assert any(each.domain == DOMAIN and each.version == 1 for each in model.opset_import) == bool(case.left)
    expected = ort(original, case.feeds)
    for found, other in zip(run_coded(model, tmp_path, case.feeds), expected, strict=True):
        assert found.dtype == other.dtype
        tolerance = 2e-3 if other.dtype == np.float16 else 2e-6
        np.testing.assert_allclose(found, other, rtol=tolerance, atol=tolerance * max(1, np.abs(other).max(initial=0)))


@pytest.mark.parametrize("external", [False, True])
def test_standard_computes_the_same(case: Case, original: Path, tmp_path: Path, external: bool) -> None:
    source = read_onnx(original)
    weights = {weight.name: weight for weight in source.weights}
    written = tmp_path / "unpacked.onnx"
    write_standard(source.graph, written, lambda name: weights[name].read(), external=external)
    onnx.checker.check_model(written, full_check=True)
    found = onnx.load(written, load_external_data=False)
    assert {node.domain for node in walk.nodes(found.graph)} <= {"", "local"}
    assert written.with_name("unpacked.onnx.data").exists() == (external and bool(weights))
    equal(ort(written, case.feeds), ort(original, case.feeds), fused=fused(source.graph))


@pytest.mark.parametrize("opset", [23, onnx.defs.onnx_opset_version()])
def test_opsets_that_onnxruntime_may_lack(opset: int, tmp_path: Path) -> None:
    case = CASES["opset 21"]
    newest = Case(case.text, case.weights, case.feeds, opset=opset, ir=onnx.IR_VERSION)
    onnx.save(newest.model(), tmp_path / "m.onnx")
    source = read_onnx(tmp_path / "m.onnx")
    (tmp_path / "coded").mkdir()
    model = coded(source.graph, write_blobs(source, tmp_path / "coded"))
    (found,) = run_coded(model, tmp_path / "coded", case.feeds)
    (expected,) = onnx.reference.ReferenceEvaluator(str(tmp_path / "m.onnx")).run(None, case.feeds)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
