"""The coded graph is one that onnx's own tools know: schemas, checker, shapes; and what they refuse."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.defs
import onnx.parser
import pytest
from command_line import bsexport
from onnx import TensorProto, helper, numpy_helper

from bsexport.errors import VerifyError
from bsexport.graph import rewrite
from bsexport.graph.schema import DOMAIN, note_shapes, refusal, register
from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.source import open_source
from bsexport.verify import check
from bsexport_runtime.format import DType
from bsexport_runtime.package import MANIFEST, seal

HEADER = '<ir_version: 8, opset_import: ["" : 17, "bsexport" : 1]>'


def graph(body: str) -> onnx.ModelProto:
    text = f"g (float[batch,2,9] x, uint8[100] b) => (int64 z) {{ {body} z = Size(y) }}"
    return onnx.parser.parse_model(HEADER + text)


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, list[Any] | None]]:
    """Value -> type and dims; "" for a dim of which nothing is known, None where not even the rank is."""
    found = {}
    for value in model.graph.value_info:
        kind = value.type.tensor_type
        dims = [dim.dim_value or dim.dim_param for dim in kind.shape.dim]
        found[value.name] = (kind.elem_type, dims if kind.HasField("shape") else None)
    return found


def test_the_schemas_are_registered_and_documented() -> None:
    register()
    register()
    found = {each.name: each for each in onnx.defs.get_all_schemas() if each.domain == DOMAIN}
    assert sorted(found) == ["EGDecode", "EGGather", "EGMatMul"]
    assert {name: sorted(each.attributes) for name, each in found.items()} == {
        "EGMatMul": ["shape", "transB"],
        "EGGather": ["shape"],
        "EGDecode": ["dtype", "shape"],
    }
    for schema in found.values():
        assert schema.since_version == 1
        parts = [schema.doc, *(a.description for a in schema.attributes.values())]
        parts += [each.description for each in (*schema.inputs, *schema.outputs)]
        assert all(parts)
        assert all(attribute.required for attribute in schema.attributes.values())
    (decoded,) = [each for each in found["EGDecode"].type_constraints if each.type_param_str == "D"]
    names = {"float32": "float", "float64": "double"}
    coded = [dtype.name.lower() for dtype in DType if dtype.coded]
    assert sorted(decoded.allowed_type_strs) == sorted(f"tensor({names.get(name, name)})" for name in coded)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("y = bsexport.EGMatMul <shape = [9, 6], transB = 0> (x, b)", (1, ["batch", 2, 6])),
        ("y = bsexport.EGMatMul <shape = [6, 9], transB = 1> (x, b)", (1, ["batch", 2, 6])),
        ("v = Size(x) w = ConstantOfShape(v) y = bsexport.EGMatMul <shape = [9, 6], transB = 0> (w, b)", (1, None)),
        ("i = Shape(x) y = bsexport.EGGather <shape = [50, 6]> (b, i)", (1, [3, 6])),
        ("i = Shape(x) y = bsexport.EGGather <shape = [50, 6, 2]> (b, i)", (1, [3, 6, 2])),
        ("i = Size(x) y = bsexport.EGGather <shape = [50, 6]> (b, i)", (1, [6])),
        ("i = NonZero(x) y = bsexport.EGGather <shape = [50, 6]> (b, i)", (1, [3, "", 6])),
        ("y = bsexport.EGDecode <shape = [4, 3, 2], dtype = 1> (b)", (1, [4, 3, 2])),
    ],
)
def test_shapes_literally(node: str, expected: tuple[int, list[Any]]) -> None:
    model = graph(node)
    note_shapes(model)
    assert shapes(model)["y"] == expected


def test_the_type_of_a_decoded_tensor_is_its_attribute() -> None:
    model = graph("y = bsexport.EGDecode <shape = [4, 3], dtype = 10> (b)")
    note_shapes(model)
    assert shapes(model)["y"] == (TensorProto.FLOAT16, [4, 3])


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("y = bsexport.EGMatMul <shape = [6, 9], transB = 0> (x, b)", "x has 9 columns, expected 6"),
        ("y = bsexport.EGMatMul <shape = [9, 6, 1], transB = 0> (x, b)", r"shape is \[9, 6, 1\], expected 2 dims"),
        ("y = bsexport.EGMatMul <shape = [9, -6], transB = 0> (x, b)", r"shape is \[9, -6\], expected 2 dims of at"),
        ("y = bsexport.EGMatMul <shape = [9, 6]> (x, b)", "[Aa]ttribute.*transB"),
        ("y = bsexport.EGMatMul <transB = 1> (x, b)", "[Aa]ttribute.*shape"),
        ("y = bsexport.EGMatMul <shape = [9, 6], transB = 1.5> (x, b)", "transB"),
        ("y = bsexport.EGMatMul <shape = [9, 6], transB = 0, k = 3> (x, b)", "Unrecognized attribute: k"),
        ("y = bsexport.EGMatMul <shape = [9, 6], transB = 0> (x)", "input size 1"),
        ("y = bsexport.EGMatMul <shape = [9, 6], transB = 0> (x, x)", "typestr: B"),
        ("i = Shape(x) y = bsexport.EGGather <shape: ints = []> (b, i)", "shape"),
        ("y = bsexport.EGGather <shape = [9, 6]> (b, x)", "typestr: I"),
        ("y = bsexport.EGDecode <shape = [4, 3], dtype = 7> (b)", "dtype is 7, which cannot be coded"),
        ("w = bsexport.EGDecode <shape = [2, 9], dtype = 10> (b) y = Add(w, x)", "[Tt]ype"),
    ],
)
def test_what_is_refused(node: str, reason: str) -> None:
    sound = graph("y = bsexport.EGDecode <shape = [4, 3], dtype = 1> (b)")
    onnx.checker.check_model(sound, full_check=True)
    found = refusal(graph(node), sound)
    assert found is not None and "\n" not in found
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found)
    assert refusal(graph(node), graph("y = Unknown(x)")) is None  # onnx does not know the model itself


# Packages


EVERYTHING = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, sequence] ids, bool flag) => (float[batch, sequence, 48] y, float[batch, 48, 6] v) {
  e = Gather (table, ids)
  p = MatMul (e, first)
  q = Relu (p)
  y = If (flag) <
    then_branch = a () => (float[batch, sequence, 48] r) { r = MatMul (q, square) },
    else_branch = b () => (float[batch, sequence, 48] s) { t = Transpose <perm = [1, 0]> (square) s = MatMul (q, t) }
  >
  c = Transpose <perm = [0, 2, 1]> (y)
  f = Conv <kernel_shape = [3]> (c, kernel)
  m = ReduceMax <axes = [2], keepdims = 0> (f)
  g = Gemm <transB = 1> (m, dense, bias)
  u = Unsqueeze (g, last)
  v = MatMul (u, row)
}
"""


def save_everything(path: Path) -> None:
    """A graph that reads coded weights in every way: products, rows, convolution, Gemm, two branches, tied or not."""
    random = np.random.default_rng(5)
    sizes = {"table": (90, 64), "first": (64, 48), "square": (48, 48), "kernel": (48, 48, 3), "dense": (48, 48)}
    model = onnx.parser.parse_model(EVERYTHING)
    for name, size in sizes.items():
        weights = np.where(random.random(size) < 0.7, 0, random.normal(0, 0.3, size)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    small = {"bias": random.normal(size=48), "row": random.normal(size=(1, 6))}
    for name, values in small.items():
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "last"))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def save_hf(kind: str, path: Path) -> Path:
    import hf_models

    return {
        "bert": lambda: hf_models.save_bert(path, "text-classification"),
        "vit": lambda: hf_models.save_vit(path),
        "tied": lambda: hf_models.save_bert(path, "fill-mask"),
    }[kind]()


@pytest.fixture(params=["everything", "bert", "vit", "tied"])
def package(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "everything":
        save_everything(tmp_path / "model.onnx")
        model = tmp_path / "model.onnx"
    else:
        model = save_hf(request.param, tmp_path / "model")
    pack(open_source(str(model)), Recipe(prune=0.5, step=2.0**-7), tmp_path / "out")
    return tmp_path / "out"


def test_the_checker_passes_the_file_as_it_lies(package: Path) -> None:
    register()
    onnx.checker.check_model(package / "model.onnx", full_check=True)


def test_every_operator_of_ours_has_its_shape_noted(package: Path) -> None:
    model = onnx.load(package / "model.onnx", load_external_data=False)
    known = shapes(model) | {value.name: (1, []) for value in model.graph.output}
    ours = [node for node in model.graph.node if node.domain == DOMAIN]
    assert len(ours) >= 3
    for node in ours:
        assert known[node.output[0]][1] is not None, node.op_type
    told = [name for name, (_, dims) in known.items() if dims is not None]
    assert len(told) >= 0.9 * sum(len(node.output) for node in model.graph.node)


def test_shapes_are_those_of_a_run(tmp_path: Path) -> None:
    """Every noted dim that is a number is the size that onnxruntime's own operators give in the plain graph."""
    import onnxruntime

    from bsexport_runtime import read_tensors

    save_everything(tmp_path / "model.onnx")
    pack(open_source(str(tmp_path / "model.onnx")), Recipe(step=2.0**-7), tmp_path / "out")
    coded = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False)
    noted = {name: dims for name, (_, dims) in shapes(coded).items() if dims is not None}
    plain = onnx.load(tmp_path / "out" / "decoded.onnx", load_external_data=False)
    weights = read_tensors(tmp_path / "out")
    del plain.graph.initializer[:]
    original = onnx.load(tmp_path / "out" / "decoded.onnx", load_external_data=False)
    for tensor in original.graph.initializer:
        given = numpy_helper.from_array(weights[tensor.name], tensor.name) if tensor.name in weights else tensor
        plain.graph.initializer.append(given)
    values = [name for node in plain.graph.node for name in node.output if name in noted]
    plain.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)
    session = onnxruntime.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"])
    arrays = session.run(values, {"ids": np.zeros((3, 7), np.int64), "flag": np.array(True)})
    assert len(values) >= 7
    sizes = {"batch": 3, "sequence": 7}
    for name, array in zip(values, arrays, strict=True):
        expected = [sizes.get(dim, dim) for dim in noted[name]]
        assert [b if a == "" else a for a, b in zip(expected, array.shape, strict=True)] == list(array.shape), name


def test_notes_of_shapes_do_not_bloat_the_graph(minilm: Path, tmp_path: Path) -> None:
    pack(open_source(str(minilm)), Recipe(prune=0.8, step=1e-3), tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 40_000
    model = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False)
    assert len(model.graph.value_info) == 215  # of 217: the others are outputs


def test_pack_refuses_a_graph_that_onnx_refuses(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made wrong on purpose: a fault of ours in the rewriting must not get into a package."""
    fused = rewrite._fused

    def wrong(*arguments: Any) -> list[onnx.NodeProto]:
        nodes = fused(*arguments)
        for node in nodes:
            if node.op_type == "EGMatMul":
                node.attribute.append(helper.make_attribute("alpha", 2.0))
        return nodes

    monkeypatch.setattr(rewrite, "_fused", wrong)
    with pytest.raises(VerifyError, match=r"small: onnx refuses the coded graph: .*alpha.*; report this, with the"):
        pack(open_source(str(small)), Recipe(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def replace_graph(package: Path, name: str, content: bytes) -> None:
    """Put another graph into a package, with the manifest as its maker would have written it."""
    (package / name).write_bytes(content)
    manifest = json.loads((package / MANIFEST).read_text())
    del manifest["sha256"]
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (package / MANIFEST).write_bytes(seal(manifest))


def test_verify_says_what_onnx_has_against_the_graph(small: Path, tmp_path: Path) -> None:
    package = tmp_path / "out"
    pack(open_source(str(small)), Recipe(), package)
    assert check(package, None, lambda stage, share: None).wrong == ()
    model = onnx.load(package / "model.onnx", load_external_data=False)
    next(node for node in model.graph.node if node.op_type == "EGMatMul").attribute[0].ints[:] = [3, 48]
    replace_graph(package, "model.onnx", model.SerializeToString())
    result = bsexport("verify", package)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {package / 'model.onnx'}: onnx refuses it: ")
    assert "x has 64 columns, expected 3" in line and line.endswith("; pack the model again")
    replace_graph(package, "model.onnx", b"no graph")
    (line,) = bsexport("verify", package).stderr.splitlines()
    assert line == f"Error: {package}: model.onnx or decoded.onnx is no ONNX graph; pack the model again"
